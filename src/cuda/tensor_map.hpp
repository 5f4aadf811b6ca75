// The tensor map (TMA descriptor) of a paged cache. Only types of <cuda.h> are used: libcuda is never linked, its encoder
// is looked up at run time.
#pragma once

#include <cuda.h>
#include <flashmla/flashmla.h>

#include <cstdint>

namespace flashmla::cuda {

/// Numbers of one box: 64 columns x 64 rows, 128 bytes a row, so that each is one 128-byte-swizzled tile.
inline constexpr uint32_t kBoxColumns = 64;
inline constexpr uint32_t kBoxRows = 64;
inline constexpr uint32_t kCacheBoxesPerCopy = 2;  // of the latent columns of a page
inline constexpr uint32_t kQueryBoxesPerCopy = 8;  // all of a row tile of q

/// The maps of a cache: `base` = [num_pages, 64, 576] of BF16 or FP16 as {64 columns, 64 tokens, 8 boxes, num_pages} (latent)
/// and {64, 64, 1, num_pages} (RoPE). One copy brings several boxes, each a whole tile in shared memory.
struct CacheTensorMaps {
  CUtensorMap latent;
  CUtensorMap rope;
};

/// Strides in elements. Made per run, because every layer has its own cache. Throws core::Error when base or strides are no
/// multiples of 16 bytes, and FLASHMLA_UNSUPPORTED without a driver.
CacheTensorMaps make_cache_tensor_maps(void const* base, int64_t num_pages, int64_t page_stride, int64_t token_stride,
                                       flashmla_dtype dtype);

/// Describes the latent columns of q as {64 columns, rows, 8 boxes, batch}, `row_stride` elements between the rows (query
/// token, head) of a request; rows past the last read zeros. The caller has checked that base and strides are multiples of
/// 16 bytes.
CUtensorMap make_query_tensor_map(void const* base, int64_t rows, int64_t row_stride, int64_t batch, int64_t batch_stride,
                                  flashmla_dtype dtype);

}  // namespace flashmla::cuda
