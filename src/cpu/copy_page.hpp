// One page over another in one layer's cache: as few memcpy as the rows of a page allow.
#pragma once

#include <cstring>

#include "core/calls.hpp"

namespace flashmla::cpu {

/// Copy number `copy_idx` of the call, in cache number `cache_idx`.
inline void copy_page(core::CopyPagesCall const& call, int64_t cache_idx, int64_t copy_idx) {
  auto const [source, target] = call.copies[copy_idx];
  if (source < 0) return;
  char* const cache = static_cast<char*>(call.caches[cache_idx].data);
  char const* const from = cache + source * call.page_stride * call.elem_bytes;
  char* const to = cache + target * call.page_stride * call.elem_bytes;
  for (int64_t i = 0; i < call.rows[0]; ++i) {
    for (int64_t j = 0; j < call.rows[1]; ++j) {
      int64_t const at = (i * call.row_stride[0] + j * call.row_stride[1]) * call.elem_bytes;
      std::memcpy(to + at, from + at, static_cast<size_t>(call.width * call.elem_bytes));
    }
  }
}

}  // namespace flashmla::cpu
