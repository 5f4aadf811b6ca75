#include "core/page_pool.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace flashmla::core {

namespace {

void check_request(char const* operation, int64_t count, void const* page_ids) {
  if (count < 0) fail_invalid(operation, "count", std::to_string(count), "at least 0");
  if (count > 0 && page_ids == nullptr) fail_invalid(operation, "page_ids", "null", "an array of " + std::to_string(count) + " page ids");
}

}  // namespace

PagePool::PagePool(int64_t num_pages) {
  if (num_pages < 1 || num_pages > INT32_MAX)
    fail_invalid("page_pool_create", "num_pages", std::to_string(num_pages), "1 to " + std::to_string(INT32_MAX) + " (page ids are int32)");
  is_free_.assign(static_cast<size_t>(num_pages), 1);
  free_.resize(static_cast<size_t>(num_pages));
  for (int64_t i = 0; i < num_pages; ++i) free_[static_cast<size_t>(i)] = static_cast<int32_t>(num_pages - 1 - i);
}

void PagePool::allocate(int64_t count, int32_t* page_ids) {
  check_request("page_pool_allocate", count, page_ids);
  std::lock_guard const lock(mutex_);
  int64_t const available = static_cast<int64_t>(free_.size());
  if (count > available) {
    throw Error(FLASHMLA_EXHAUSTED, "page_pool_allocate: count: got " + std::to_string(count) + ", expected at most " +
                                        std::to_string(available) + " (free pages of " + std::to_string(is_free_.size()) + ")");
  }
  std::reverse_copy(free_.end() - count, free_.end(), page_ids);
  free_.resize(static_cast<size_t>(available - count));
  for (int64_t i = 0; i < count; ++i) is_free_[static_cast<size_t>(page_ids[i])] = 0;
}

void PagePool::free(int64_t count, int32_t const* page_ids) {
  constexpr char kOperation[] = "page_pool_free";
  check_request(kOperation, count, page_ids);
  std::lock_guard const lock(mutex_);
  auto const in_range = [this](int32_t id) { return id >= 0 && id < num_pages(); };
  int64_t marked = 0;
  for (; marked < count && in_range(page_ids[marked]) && !is_free_[static_cast<size_t>(page_ids[marked])]; ++marked)
    is_free_[static_cast<size_t>(page_ids[marked])] = 1;
  if (marked < count) {
    for (int64_t i = 0; i < marked; ++i) is_free_[static_cast<size_t>(page_ids[i])] = 0;
    std::string const expected =
        in_range(page_ids[marked]) ? "a page in use (free already, or named twice)" : "an id in [0, " + std::to_string(num_pages()) + ")";
    fail_invalid(kOperation, "page_ids[" + std::to_string(marked) + "]", std::to_string(page_ids[marked]), expected);
  }
  free_.insert(free_.end(), page_ids, page_ids + count);  // within the capacity
}

int64_t PagePool::num_free() const {
  std::lock_guard const lock(mutex_);
  return static_cast<int64_t>(free_.size());
}

}  // namespace flashmla::core
