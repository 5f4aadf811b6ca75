#include "core/page_pool.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace flashmla::core {

namespace {

constexpr char kFork[] = "page_pool_fork";

void check_request(char const* operation, int64_t count, void const* page_ids) {
  if (count < 0) fail_invalid(operation, "count", std::to_string(count), "at least 0");
  if (count > 0 && page_ids == nullptr) fail_invalid(operation, "page_ids", "null", "an array of " + std::to_string(count) + " page ids");
}

std::string entry(char const* argument, int64_t i) { return std::string(argument) + "[" + std::to_string(i) + "]"; }

}  // namespace

PagePool::PagePool(int64_t num_pages) {
  if (num_pages < 1 || num_pages > INT32_MAX)
    fail_invalid("page_pool_create", "num_pages", std::to_string(num_pages), "1 to " + std::to_string(INT32_MAX) + " (page ids are int32)");
  references_.assign(static_cast<size_t>(num_pages), 0);
  free_.resize(static_cast<size_t>(num_pages));
  for (int64_t i = 0; i < num_pages; ++i) free_[static_cast<size_t>(i)] = static_cast<int32_t>(num_pages - 1 - i);
}

void PagePool::allocate(int64_t count, int32_t* page_ids) {
  check_request("page_pool_allocate", count, page_ids);
  std::lock_guard const lock(mutex_);
  int64_t const available = static_cast<int64_t>(free_.size());
  if (count > available) {
    throw Error(FLASHMLA_EXHAUSTED, "page_pool_allocate: count: got " + std::to_string(count) + ", expected at most " +
                                        std::to_string(available) + " (free pages of " + std::to_string(num_pages()) + ")");
  }
  std::reverse_copy(free_.end() - count, free_.end(), page_ids);
  free_.resize(static_cast<size_t>(available - count));
  for (int64_t i = 0; i < count; ++i) references_of(page_ids[i]) = 1;
}

void PagePool::check_in_use(char const* operation, int64_t count, int32_t const* page_ids) const {
  for (int64_t i = 0; i < count; ++i) {
    int32_t const id = page_ids[i];
    if (!in_range(id))
      fail_invalid(operation, entry("page_ids", i), std::to_string(id), "an id in [0, " + std::to_string(num_pages()) + ")");
    if (references_[static_cast<size_t>(id)] == 0)
      fail_invalid(operation, entry("page_ids", i), std::to_string(id), "a page in use (it is free)");
  }
}

void PagePool::retain(int64_t count, int32_t const* page_ids) {
  constexpr char kOperation[] = "page_pool_retain";
  check_request(kOperation, count, page_ids);
  std::lock_guard const lock(mutex_);
  check_in_use(kOperation, count, page_ids);
  for (int64_t i = 0; i < count; ++i) ++references_of(page_ids[i]);
}

void PagePool::free(int64_t count, int32_t const* page_ids) {
  constexpr char kOperation[] = "page_pool_free";
  check_request(kOperation, count, page_ids);
  std::lock_guard const lock(mutex_);
  size_t const before = free_.size();
  int64_t done = 0;
  for (; done < count && in_range(page_ids[done]) && references_of(page_ids[done]) > 0; ++done)
    if (--references_of(page_ids[done]) == 0) free_.push_back(page_ids[done]);  // within the capacity
  if (done == count) return;
  free_.resize(before);
  for (int64_t i = 0; i < done; ++i) ++references_of(page_ids[i]);
  int32_t const id = page_ids[done];
  std::string const expected = in_range(id) ? "a page in use (free already, or named more often than it has references)"
                                            : "an id in [0, " + std::to_string(num_pages()) + ")";
  fail_invalid(kOperation, entry("page_ids", done), std::to_string(id), expected);
}

flashmla_page_copy PagePool::fork(int64_t tokens, int64_t page_tokens, int32_t const* page_ids, int32_t* forked_ids) {
  if (page_tokens < 1) fail_invalid(kFork, "page_tokens", std::to_string(page_tokens), "at least 1");
  if (tokens < 0) fail_invalid(kFork, "tokens", std::to_string(tokens), "at least 0");
  int64_t const shared = tokens / page_tokens;
  bool const ends_inside = tokens % page_tokens != 0;
  int64_t const count = shared + (ends_inside ? 1 : 0);
  check_request(kFork, count, page_ids);
  if (count > 0 && forked_ids == nullptr) fail_invalid(kFork, "forked_ids", "null", "room for " + std::to_string(count) + " page ids");
  std::lock_guard const lock(mutex_);
  check_in_use(kFork, count, page_ids);
  if (ends_inside && free_.empty())
    throw Error(FLASHMLA_EXHAUSTED, std::string(kFork) + ": tokens: got " + std::to_string(tokens) +
                                        ", which take 1 new page, expected at most 0 (free pages of " + std::to_string(num_pages()) + ")");
  for (int64_t i = 0; i < shared; ++i) ++references_of(page_ids[i]);
  flashmla_page_copy copy{-1, -1};
  if (ends_inside) {
    copy = {page_ids[shared], free_.back()};
    free_.pop_back();
    references_of(copy.target) = 1;
  }
  std::copy_n(page_ids, shared, forked_ids);
  if (ends_inside) forked_ids[shared] = copy.target;
  return copy;
}

int64_t PagePool::num_free() const {
  std::lock_guard const lock(mutex_);
  return static_cast<int64_t>(free_.size());
}

int64_t PagePool::references(int32_t page_id) const {
  std::lock_guard const lock(mutex_);
  return in_range(page_id) ? references_[static_cast<size_t>(page_id)] : 0;
}

}  // namespace flashmla::core
