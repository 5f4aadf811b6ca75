// Copy pages: each pair's source page over its target page, in the cache of every layer.
//
// Math: a copy; word i of page `target` = word i of page `source`, in each cache. Reference: src/reference/copy_pages.cpp.
// Roles: one CTA a (cache, pair, chunk of a page); every thread copies kWordsPerThread words.
// Timeline: all loads of a thread, then its stores. No target is a source of the same call, so CTAs need no order.
// Shared memory: none.
// Barriers: none.
// Registers: no constraint.
// Limits: kMaxCaches caches and kMaxCopies pairs a launch, for they travel in its parameters: nothing that the caller owns
//   has to live on, in a captured graph either. The launcher splits longer lists.
#pragma once

#include <cstdint>

#include "core/calls.hpp"

namespace flashmla::cuda::copy_pages {

inline constexpr int kThreads = 256;
inline constexpr int kWordsPerThread = 4;
inline constexpr int kWordsPerCta = kThreads * kWordsPerThread;
inline constexpr int kMaxCaches = 64, kMaxCopies = 384;

/// Strides and widths in units of Word, the widest access that every address allows.
struct CopyPagesParams {
  void* caches[kMaxCaches];  // each [num_pages, rows[0], rows[1], width]
  flashmla_page_copy copies[kMaxCopies];
  int64_t page_stride, row_stride[2];
  int64_t width, page_words;  // page_words = rows[0] * rows[1] * width
  int64_t inner_rows;         // rows[1]
  int32_t num_copies;
  int32_t num_chunks;  // CTAs a page
};
static_assert(sizeof(CopyPagesParams) <= 4096, "kernel parameters before CUDA 12.1");

/// Where word i of a page lies, from the page's first.
__device__ inline int64_t offset_of(CopyPagesParams const& p, int64_t i) {
  if (p.width == p.page_words) return i;
  int64_t const row = i / p.width;
  return row / p.inner_rows * p.row_stride[0] + row % p.inner_rows * p.row_stride[1] + i % p.width;
}

template <class Word>
__global__ void __launch_bounds__(kThreads) copy_pages_kernel(CopyPagesParams const __grid_constant__ p) {
  cudaGridDependencySynchronize();
  int32_t const task = static_cast<int32_t>(blockIdx.x) / p.num_chunks, chunk = static_cast<int32_t>(blockIdx.x) % p.num_chunks;
  flashmla_page_copy const copy = p.copies[task % p.num_copies];
  Word* const cache = static_cast<Word*>(p.caches[task / p.num_copies]);
  Word const* const from = cache + copy.source * p.page_stride;
  Word* const to = cache + copy.target * p.page_stride;
  int64_t const first = static_cast<int64_t>(chunk) * kWordsPerCta + threadIdx.x;

  Word words[kWordsPerThread];
#pragma unroll
  for (int k = 0; k < kWordsPerThread; ++k)
    if (int64_t const i = first + k * kThreads; i < p.page_words) words[k] = from[offset_of(p, i)];
#pragma unroll
  for (int k = 0; k < kWordsPerThread; ++k)
    if (int64_t const i = first + k * kThreads; i < p.page_words) to[offset_of(p, i)] = words[k];
}

}  // namespace flashmla::cuda::copy_pages
