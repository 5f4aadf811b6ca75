#include "conformance/page_pool_check.hpp"

#include <algorithm>
#include <memory>

#include "conformance/random.hpp"

namespace flashmla::conformance {
namespace {

struct PoolDeleter {
  void operator()(flashmla_page_pool* pool) const { flashmla_page_pool_destroy(pool); }
};

/// The pool and what it should hold: how many references each page has. A step returns an empty text or what went wrong.
class PoolModel {
 public:
  PoolModel(PagePoolCase const& c, flashmla_page_pool* pool)
      : num_pages_(c.num_pages), pool_(pool), random_(seed_of(c.name.c_str())), references_(static_cast<size_t>(c.num_pages)) {}

  std::string step() {
    std::string const text = random_.below(8) == 0   ? free_wrongly()
                             : random_.below(3) == 0 ? allocate(random_.below(num_pages_ / 3 + 2))
                             : random_.below(3) == 0 ? fork()
                             : random_.below(4) == 0 ? retain()
                                                     : free_some();
    if (!text.empty()) return text;
    int64_t const free = flashmla_page_pool_num_free(pool_), expected = num_free();
    if (free != expected) return "num_free is " + std::to_string(free) + ", expected " + std::to_string(expected);
    int64_t const page = random_.below(num_pages_), count = flashmla_page_pool_references(pool_, static_cast<int32_t>(page));
    if (count == of(page)) return "";
    return "page " + std::to_string(page) + " has " + std::to_string(count) + " references, expected " + std::to_string(of(page));
  }

  std::string allocate(int64_t count) {
    std::vector<int32_t> ids(static_cast<size_t>(count), -7);
    bool const fits = count <= num_free();
    auto const status = flashmla_page_pool_allocate(pool_, count, ids.data());
    if (status != (fits ? FLASHMLA_OK : FLASHMLA_EXHAUSTED)) return answered("allocate", status);
    for (int32_t const id : ids) {
      if (!fits && id != -7) return "allocate failed and wrote ids";
      if (fits && (id < 0 || id >= num_pages_)) return "allocate gives page " + std::to_string(id) + " of " + std::to_string(num_pages_);
      if (fits && of(id)++ != 0) return "allocate gives page " + std::to_string(id) + ", which is in use";
    }
    return "";
  }

  /// Of some tokens in some pages of the model.
  std::string fork() {
    std::vector<int32_t> const parent = some_used();
    int64_t const page_tokens = random_.between(1, 64), tokens = random_.below(static_cast<int64_t>(parent.size()) * page_tokens + 1);
    auto const full = static_cast<size_t>(tokens / page_tokens), pages = full + (tokens % page_tokens != 0 ? 1 : 0);
    std::vector<int32_t> child(pages, -7);
    flashmla_page_copy copy{-7, -7};
    bool const fits = full == pages || num_free() > 0;
    auto const status = flashmla_page_pool_fork(pool_, tokens, page_tokens, parent.data(), child.data(), &copy);
    if (status != (fits ? FLASHMLA_OK : FLASHMLA_EXHAUSTED)) return answered("fork", status);
    if (!fits) return copy.target == -7 && child == std::vector<int32_t>(pages, -7) ? "" : "fork failed and wrote ids";
    if (!std::equal(child.begin(), child.begin() + static_cast<std::ptrdiff_t>(full), parent.begin()))
      return "fork gives other pages than the parent's";
    for (size_t i = 0; i < full; ++i) ++of(parent[i]);
    if (full == pages) return copy.source == -1 && copy.target == -1 ? "" : "fork of full pages asks for a copy";
    if (copy.source != parent[full] || copy.target != child[full]) return "fork asks for another copy than that of the last page";
    return of(child[full])++ == 0 ? "" : "fork gives page " + std::to_string(child[full]) + ", which is in use";
  }

  std::string retain() {
    std::vector<int32_t> const some = some_used();
    auto const status = flashmla_page_pool_retain(pool_, static_cast<int64_t>(some.size()), some.data());
    if (status != FLASHMLA_OK) return answered("retain", status);
    for (int32_t const id : some) ++of(id);
    return "";
  }

  std::string free_some() {
    std::vector<int32_t> some = some_used();
    for (size_t i = some.size(); i > 0; --i)  // a page may be named as often as it has references
      if (int32_t const id = some[i - 1]; of(id) > 1 && random_.below(2) == 0) some.push_back(id);
    auto const status = flashmla_page_pool_free(pool_, static_cast<int64_t>(some.size()), some.data());
    if (status != FLASHMLA_OK) return answered("free", status);
    for (int32_t const id : some) --of(id);
    return "";
  }

  /// Good ids first, so that a pool which frees before it checks is caught.
  std::string free_wrongly() {
    std::vector<int32_t> const used = some_used();
    if (used.empty()) return "";
    int32_t const good = used[0];
    for (int32_t const bad : {-1, static_cast<int32_t>(num_pages_), good, a_free_page()}) {
      std::vector<int32_t> ids(static_cast<size_t>(of(good)), good);
      ids.push_back(bad);
      if (auto const status = flashmla_page_pool_free(pool_, static_cast<int64_t>(ids.size()), ids.data());
          status != FLASHMLA_INVALID_ARGUMENT)
        return answered("free of page " + std::to_string(bad) + " too often", status);
    }
    return "";
  }

 private:
  static std::string answered(std::string const& call, flashmla_status status) {
    return call + " answers " + flashmla_status_name(status) + ": " + flashmla_last_error();
  }
  int64_t& of(int64_t id) { return references_[static_cast<size_t>(id)]; }
  [[nodiscard]] int64_t num_free() const { return std::count(references_.begin(), references_.end(), 0); }

  /// Some of the pages in use, each once, in any order.
  std::vector<int32_t> some_used() {
    std::vector<int32_t> all;
    for (int32_t id = 0; id < num_pages_; ++id)
      if (of(id) > 0) all.push_back(id);
    random_.shuffle(all);
    all.resize(static_cast<size_t>(random_.below(static_cast<int64_t>(all.size()) + 1)));
    return all;
  }

  /// One that nobody holds, or an id out of range when all are held.
  int32_t a_free_page() const { return static_cast<int32_t>(std::find(references_.begin(), references_.end(), 0) - references_.begin()); }

  int64_t num_pages_;
  flashmla_page_pool* pool_;
  Random random_;
  std::vector<int64_t> references_;
};

}  // namespace

Outcome check_page_pool(PagePoolCase const& c) {
  flashmla_page_pool* raw = nullptr;
  if (auto const status = flashmla_page_pool_create(c.num_pages, &raw); status != FLASHMLA_OK) return refused("page_pool_create", status);
  std::unique_ptr<flashmla_page_pool, PoolDeleter> const pool(raw);
  if (flashmla_page_pool_num_pages(raw) != c.num_pages) return failed("num_pages is " + std::to_string(flashmla_page_pool_num_pages(raw)));

  PoolModel model(c, raw);
  for (int step = 0; step < c.steps; ++step)
    if (std::string const text = model.step(); !text.empty()) return failed("step " + std::to_string(step) + ": " + text);
  return {};
}

std::vector<PagePoolCase> page_pool_cases(Tier) { return {{"one_page", 1, 200}, {"small", 64, 2000}, {"large", 4096, 300}}; }

}  // namespace flashmla::conformance
