// Page pools: the C ABI in terms of core::PagePool.
#include "core/page_pool.hpp"

#include <memory>

#include "api/boundary.hpp"

using flashmla::api::guarded;
using flashmla::api::require;

struct flashmla_page_pool {
  flashmla::core::PagePool pages;
};

extern "C" {

flashmla_status flashmla_page_pool_create(int64_t num_pages, flashmla_page_pool** pool) {
  constexpr char kOperation[] = "page_pool_create";
  return guarded(kOperation, [&] {
    require(kOperation, "pool", pool);
    *pool = new flashmla_page_pool{flashmla::core::PagePool(num_pages)};
  });
}

void flashmla_page_pool_destroy(flashmla_page_pool* pool) { delete pool; }

flashmla_status flashmla_page_pool_allocate(flashmla_page_pool* pool, int64_t count, int32_t* page_ids) {
  constexpr char kOperation[] = "page_pool_allocate";
  return guarded(kOperation, [&] {
    require(kOperation, "pool", pool);
    pool->pages.allocate(count, page_ids);
  });
}

flashmla_status flashmla_page_pool_retain(flashmla_page_pool* pool, int64_t count, int32_t const* page_ids) {
  constexpr char kOperation[] = "page_pool_retain";
  return guarded(kOperation, [&] {
    require(kOperation, "pool", pool);
    pool->pages.retain(count, page_ids);
  });
}

flashmla_status flashmla_page_pool_free(flashmla_page_pool* pool, int64_t count, int32_t const* page_ids) {
  constexpr char kOperation[] = "page_pool_free";
  return guarded(kOperation, [&] {
    require(kOperation, "pool", pool);
    pool->pages.free(count, page_ids);
  });
}

flashmla_status flashmla_page_pool_fork(flashmla_page_pool* pool, int64_t tokens, int64_t page_tokens, int32_t const* page_ids,
                                        int32_t* forked_ids, flashmla_page_copy* copy) {
  constexpr char kOperation[] = "page_pool_fork";
  return guarded(kOperation, [&] {
    require(kOperation, "pool", pool);
    require(kOperation, "copy", copy);
    *copy = pool->pages.fork(tokens, page_tokens, page_ids, forked_ids);
  });
}

int64_t flashmla_page_pool_references(flashmla_page_pool const* pool, int32_t page_id) {
  return pool == nullptr ? 0 : pool->pages.references(page_id);
}

int64_t flashmla_page_pool_num_free(flashmla_page_pool const* pool) { return pool == nullptr ? 0 : pool->pages.num_free(); }

int64_t flashmla_page_pool_num_pages(flashmla_page_pool const* pool) { return pool == nullptr ? 0 : pool->pages.num_pages(); }

}  // extern "C"
