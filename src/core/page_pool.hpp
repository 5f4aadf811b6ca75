// Hands out page ids and counts who holds them. The ids are the same for all layers of a model; which memory a page is, is
// the caller's business.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <mutex>
#include <vector>

namespace flashmla::core {

/// A stack of free ids and a count a page, so that every direction costs O(1) a page and a free too many is seen.
/// Thread-safe. Every operation is all or nothing.
class PagePool {
 public:
  /// Throws Error(FLASHMLA_INVALID_ARGUMENT) unless 1 <= num_pages <= 2^31 - 1 (page ids are int32).
  explicit PagePool(int64_t num_pages);

  /// Takes `count` pages with one reference each, lowest ids first from a fresh pool. Throws Error(FLASHMLA_EXHAUSTED) when
  /// fewer are free.
  void allocate(int64_t count, int32_t* page_ids);  // [count]
  /// One reference more for each id. Throws Error(FLASHMLA_INVALID_ARGUMENT) for an id out of range or free.
  void retain(int64_t count, int32_t const* page_ids);  // [count]
  /// One reference less for each id; a page without any is free. Throws Error(FLASHMLA_INVALID_ARGUMENT) for an id out of
  /// range, free already, or named more often than it has references.
  void free(int64_t count, int32_t const* page_ids);  // [count]
  /// A second holder of the first `tokens` tokens: the same pages, but a new one in the place of a last page that is not
  /// full. Returns the copy that this asks for, or a pair of -1. Throws as retain and allocate do.
  flashmla_page_copy fork(int64_t tokens, int64_t page_tokens, int32_t const* page_ids,
                          int32_t* forked_ids);  // both [ceil(tokens / page_tokens)]

  [[nodiscard]] int64_t num_free() const;
  [[nodiscard]] int64_t num_pages() const { return static_cast<int64_t>(references_.size()); }
  /// 0 for a free page and for an id out of range.
  [[nodiscard]] int64_t references(int32_t page_id) const;

 private:
  [[nodiscard]] bool in_range(int32_t id) const { return id >= 0 && id < num_pages(); }
  int64_t& references_of(int32_t id) { return references_[static_cast<size_t>(id)]; }
  void check_in_use(char const* operation, int64_t count, int32_t const* page_ids) const;

  mutable std::mutex mutex_;
  std::vector<int32_t> free_;        // the next page is the last entry; capacity for every page, so that free() can't fail
  std::vector<int64_t> references_;  // [num_pages]; 0 = free
};

}  // namespace flashmla::core
