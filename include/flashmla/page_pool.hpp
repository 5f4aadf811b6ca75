// PagePool: which pages of a paged cache are free. The ids serve all layers of a model.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <flashmla/error.hpp>
#include <memory>
#include <vector>

namespace flashmla {

/// Hands out page ids 0 .. num_pages - 1. Thread-safe, movable; O(1) a page. Every call is all or nothing.
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
    std::vector<int32_t> page_ids(static_cast<size_t>(count < 0 ? 0 : count));
    check(flashmla_page_pool_allocate(pool_.get(), count, page_ids.data()));
    return page_ids;
  }
  /// Throws Error(FLASHMLA_INVALID_ARGUMENT) for an id out of range, free already or named twice.
  void free(std::vector<int32_t> const& page_ids) {
    check(flashmla_page_pool_free(pool_.get(), static_cast<int64_t>(page_ids.size()), page_ids.data()));
  }

  [[nodiscard]] int64_t num_free() const noexcept { return flashmla_page_pool_num_free(pool_.get()); }
  [[nodiscard]] int64_t num_pages() const noexcept { return flashmla_page_pool_num_pages(pool_.get()); }

 private:
  struct Destroy {
    void operator()(flashmla_page_pool* pool) const noexcept { flashmla_page_pool_destroy(pool); }
  };
  std::unique_ptr<flashmla_page_pool, Destroy> pool_;
};

}  // namespace flashmla
