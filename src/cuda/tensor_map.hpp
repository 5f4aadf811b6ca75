// The tensor map (TMA descriptor) of a paged cache. Only types of <cuda.h> are used: libcuda is never linked, its encoder
// is looked up at run time.
#pragma once

#include <cuda.h>
#include <flashmla/flashmla.h>

#include <cstdint>

namespace flashmla::cuda {

/// Numbers of one box: 64 columns x 64 tokens x 1 page, 128 bytes a row, so that a box is one 128-byte-swizzled tile.
inline constexpr uint32_t kCacheBoxColumns = 64;
inline constexpr uint32_t kCacheBoxTokens = 64;

/// Describes `base` = [num_pages, 64, 576] of BF16 or FP16 as the 3-D tensor {576 columns, 64 tokens, num_pages}, fastest
/// first; strides in elements. Coordinates outside read zeros. Made per run, because every layer has its own cache.
/// Throws core::Error when base or strides are no multiples of 16 bytes, and FLASHMLA_UNSUPPORTED without a driver.
CUtensorMap make_cache_tensor_map(void const* base, int64_t num_pages, int64_t page_stride, int64_t token_stride, flashmla_dtype dtype);

}  // namespace flashmla::cuda
