// The tensor map (TMA descriptor) of a paged cache. Only types of <cuda.h> are used: libcuda is never linked, its encoder
// is looked up at run time.
#pragma once

#include <cuda.h>
#include <flashmla/flashmla.h>

#include <cstdint>

namespace flashmla::cuda {

/// Numbers of one box: 64 columns x up to 64 rows, 128 bytes a row, so that 64 rows are one 128-byte-swizzled tile.
inline constexpr uint32_t kBoxColumns = 64;

/// A paged cache: [num_pages, page_tokens, heads, columns] of latent columns, and of up to 64 of RoPE, 2-byte elements. Strides in
/// elements.
struct CacheGeometry {
  struct Part {
    void const* base;
    int64_t page_stride, token_stride, head_stride, columns;
  };
  Part latent, rope;
  bool is_fused;  // rope lies behind latent in one tensor
  int64_t num_pages, page_tokens, heads;
};

/// Throws core::Error where a base or a stride is no multiple of 16 bytes or out of a tensor map's range: what every way of
/// copying a cache to shared memory asks for.
void check_cache_geometry(CacheGeometry const& cache);

/// The maps of a cache, {64 columns, page_tokens, boxes, heads, num_pages} (latent) and {columns, page_tokens, 1, heads, num_pages}
/// (RoPE). One copy brings `box.tokens` tokens of a page, and `box.boxes` boxes of the latent columns; of fewer than 64 columns of RoPE
/// it fills the rest of a box's rows with zeros. make_page_tensor_maps: {64 columns, 8 tokens, boxes, page_tokens / 8, num_pages}. One copy brings
/// all of a page, eight tokens of each box after the other.
struct CacheTensorMaps {
  CUtensorMap latent;
  CUtensorMap rope;
};

struct CacheBox {
  uint32_t tokens, boxes;
  CUtensorMapL2promotion fetches;  // what L2 fetches for a line of 128 bytes
};

/// Made per run, because every layer has its own cache. Throws core::Error as check_cache_geometry does, and FLASHMLA_UNSUPPORTED
/// without a driver.
CacheTensorMaps make_cache_tensor_maps(CacheGeometry const& cache, CacheBox box, flashmla_dtype dtype);

/// The same for copies of whole pages, a multiple of 8 tokens, of one KV head, `boxes` boxes of the latent columns each.
CacheTensorMaps make_page_tensor_maps(CacheGeometry const& cache, uint32_t boxes, CUtensorMapL2promotion fetches, flashmla_dtype dtype);

/// The latent columns of q: [batch, rows, columns], 2-byte elements, rows (query token, head). Strides in elements.
struct QueryGeometry {
  void const* base;
  int64_t rows, row_stride;
  int64_t batch, batch_stride;
  int64_t columns;
  uint32_t box_rows;
  CUtensorMapL2promotion fetches;
};

/// Describes q as {64 columns, rows, boxes, 1, batch}; a copy brings all boxes of `box_rows` rows, and zeros for rows past the last. The caller
/// has checked that base and strides are multiples of 16 bytes.
CUtensorMap make_query_tensor_map(QueryGeometry const& q, flashmla_dtype dtype);

}  // namespace flashmla::cuda
