#include "conformance/page_pool_check.hpp"

#include <memory>
#include <set>

#include "conformance/random.hpp"

namespace flashmla::conformance {
namespace {

struct PoolDeleter {
  void operator()(flashmla_page_pool* pool) const { flashmla_page_pool_destroy(pool); }
};

/// The pool and what it should hold. A step returns an empty text or what went wrong.
class PoolModel {
 public:
  PoolModel(PagePoolCase const& c, flashmla_page_pool* pool) : num_pages_(c.num_pages), pool_(pool), random_(seed_of(c.name.c_str())) {}

  std::string step() {
    std::string const text = random_.below(8) == 0   ? free_wrongly()
                             : random_.below(2) == 0 ? allocate(random_.below(num_pages_ / 3 + 2))
                                                     : free_some();
    if (!text.empty()) return text;
    int64_t const free = flashmla_page_pool_num_free(pool_), expected = num_pages_ - static_cast<int64_t>(used_.size());
    return free == expected ? "" : "num_free is " + std::to_string(free) + ", expected " + std::to_string(expected);
  }

  std::string allocate(int64_t count) {
    std::vector<int32_t> ids(static_cast<size_t>(count), -7);
    auto const status = flashmla_page_pool_allocate(pool_, count, ids.data());
    bool const fits = count <= num_pages_ - static_cast<int64_t>(used_.size());
    if (status != (fits ? FLASHMLA_OK : FLASHMLA_EXHAUSTED))
      return std::string("allocate answers ") + flashmla_status_name(status) + ": " + flashmla_last_error();
    for (int32_t const id : ids) {
      if (!fits && id != -7) return "allocate failed and wrote ids";
      if (fits && (id < 0 || id >= num_pages_)) return "allocate gives page " + std::to_string(id) + " of " + std::to_string(num_pages_);
      if (fits && !used_.insert(id).second) return "allocate gives page " + std::to_string(id) + " twice";
    }
    return "";
  }

  std::string free_some() {
    std::vector<int32_t> all(used_.begin(), used_.end());
    random_.shuffle(all);
    all.resize(static_cast<size_t>(random_.below(static_cast<int64_t>(all.size()) + 1)));
    if (flashmla_page_pool_free(pool_, static_cast<int64_t>(all.size()), all.data()) != FLASHMLA_OK)
      return std::string("free: ") + flashmla_last_error();
    for (int32_t const id : all) used_.erase(id);
    return "";
  }

  /// A good id first, so that a pool which frees before it checks is caught.
  std::string free_wrongly() {
    if (used_.empty()) return "";
    int32_t const good = *used_.begin();
    for (int32_t const bad : {-1, static_cast<int32_t>(num_pages_), good, a_free_page()}) {
      int32_t const ids[] = {good, bad};
      if (auto const status = flashmla_page_pool_free(pool_, 2, ids); status != FLASHMLA_INVALID_ARGUMENT)
        return "free of " + std::to_string(good) + " and " + std::to_string(bad) + " answers " + flashmla_status_name(status);
    }
    return "";
  }

 private:
  /// One that nobody holds, or an id out of range when all are held.
  int32_t a_free_page() {
    for (int32_t id = 0; id < num_pages_; ++id)
      if (!used_.contains(id)) return id;
    return static_cast<int32_t>(num_pages_);
  }

  int64_t num_pages_;
  flashmla_page_pool* pool_;
  Random random_;
  std::set<int32_t> used_;
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
