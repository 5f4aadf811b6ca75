// Hands out page ids. The ids are the same for all layers of a model; which memory a page is, is the caller's business.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace flashmla::core {

/// A stack of free ids and one mark a page, so that both directions cost O(1) a page and a double free is seen.
/// Thread-safe. Every operation is all or nothing.
class PagePool {
 public:
  /// Throws Error(FLASHMLA_INVALID_ARGUMENT) unless 1 <= num_pages <= 2^31 - 1 (page ids are int32).
  explicit PagePool(int64_t num_pages);

  /// Takes `count` pages, lowest ids first from a fresh pool. Throws Error(FLASHMLA_EXHAUSTED) when fewer are free.
  void allocate(int64_t count, int32_t* page_ids);  // [count]
  /// Returns pages. Throws Error(FLASHMLA_INVALID_ARGUMENT) for an id out of range, free already or named twice.
  void free(int64_t count, int32_t const* page_ids);  // [count]

  [[nodiscard]] int64_t num_free() const;
  [[nodiscard]] int64_t num_pages() const { return static_cast<int64_t>(is_free_.size()); }

 private:
  mutable std::mutex mutex_;
  std::vector<int32_t> free_;     // the next page is the last entry; capacity for every page, so that free() can't fail
  std::vector<uint8_t> is_free_;  // [num_pages]
};

}  // namespace flashmla::core
