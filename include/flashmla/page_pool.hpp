// PagePool: which pages of a paged cache are free, and how many hold the others. The ids serve all layers of a model.
#pragma once

#include <flashmla/flashmla.h>

#include <algorithm>
#include <cstdint>
#include <flashmla/error.hpp>
#include <memory>
#include <string>
#include <vector>

namespace flashmla {

/// The page `source` to be copied over the page `target`.
using PageCopy = flashmla_page_copy;

/// What PagePool::fork gives: the pages of the new holder, and what copy_pages has to do before either holder writes.
struct Fork {
  std::vector<int32_t> pages;
  std::vector<PageCopy> copies;  // one, or none when the tokens end with a page
};

/// Hands out page ids 0 .. num_pages - 1 and counts the references to each. Thread-safe, movable; O(1) a page. Every call
/// is all or nothing.
class PagePool {
 public:
  /// Throws Error unless 1 <= num_pages <= 2^31 - 1.
  explicit PagePool(int64_t num_pages) {
    flashmla_page_pool* pool = nullptr;
    check(flashmla_page_pool_create(num_pages, &pool));
    pool_.reset(pool);
  }

  /// Throws Error(FLASHMLA_EXHAUSTED) when fewer than `count` pages are free.
  [[nodiscard]] std::vector<int32_t> allocate(int64_t count) {
    // No pool holds more than num_pages, so a larger count is refused without room for it.
    std::vector<int32_t> page_ids(static_cast<size_t>(std::clamp<int64_t>(count, 0, num_pages())));
    check(flashmla_page_pool_allocate(pool_.get(), count, page_ids.data()));
    return page_ids;
  }
  /// One reference more for each id. Throws Error(FLASHMLA_INVALID_ARGUMENT) for one that is out of range or free.
  void retain(std::vector<int32_t> const& page_ids) {
    check(flashmla_page_pool_retain(pool_.get(), static_cast<int64_t>(page_ids.size()), page_ids.data()));
  }
  /// One reference less for each id; a page without references is free again. Throws Error(FLASHMLA_INVALID_ARGUMENT) for an
  /// id out of range, free already or named more often than it has references.
  void free(std::vector<int32_t> const& page_ids) {
    check(flashmla_page_pool_free(pool_.get(), static_cast<int64_t>(page_ids.size()), page_ids.data()));
  }

  /// A second holder of the first `tokens` tokens of a request with these pages: full pages are shared, and a last page that
  /// is not full, which both holders are going to write, is a new one. Throws Error: FLASHMLA_EXHAUSTED when that one is
  /// missing, FLASHMLA_INVALID_ARGUMENT for too few pages, and for ids out of range or free.
  [[nodiscard]] Fork fork(std::vector<int32_t> const& page_ids, int64_t tokens, int64_t page_tokens) {
    int64_t const given = static_cast<int64_t>(page_ids.size());
    int64_t const needed = tokens > 0 && page_tokens > 0 ? (tokens - 1) / page_tokens + 1 : 0;
    if (given < needed) {
      throw Error(FLASHMLA_INVALID_ARGUMENT, "page_pool_fork: page_ids: got " + std::to_string(given) + ", expected at least " +
                                                 std::to_string(needed) + " (the pages of " + std::to_string(tokens) + " tokens)");
    }
    Fork fork{std::vector<int32_t>(static_cast<size_t>(needed)), {}};
    PageCopy copy{-1, -1};
    check(flashmla_page_pool_fork(pool_.get(), tokens, page_tokens, page_ids.data(), fork.pages.data(), &copy));
    if (copy.target >= 0) fork.copies.push_back(copy);
    return fork;
  }

  /// References of a page: 0 when it is free, or no page of this pool.
  [[nodiscard]] int64_t references(int32_t page_id) const noexcept { return flashmla_page_pool_references(pool_.get(), page_id); }
  [[nodiscard]] int64_t num_free() const noexcept { return flashmla_page_pool_num_free(pool_.get()); }
  [[nodiscard]] int64_t num_pages() const noexcept { return flashmla_page_pool_num_pages(pool_.get()); }

 private:
  struct Destroy {
    void operator()(flashmla_page_pool* pool) const noexcept { flashmla_page_pool_destroy(pool); }
  };
  std::unique_ptr<flashmla_page_pool, Destroy> pool_;
};

}  // namespace flashmla
