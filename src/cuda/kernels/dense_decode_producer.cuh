// The producer of dense_decode.cuh: Q and pages into shared memory by TMA, ahead of the consumers.
#pragma once

#include "cuda/kernels/dense_decode_state.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"

namespace flashmla::cuda::dense_decode {

/// Where a tile comes from.
struct KvSource {
  ptx::TmaSource latent, rope;
};

/// One tile into its stage, region by region. The half that the tile's owner does not multiply is let go first, and the
/// owner reads the copies in the same order.
__device__ __forceinline__ void load_tile(Shared& s, KvSource const& kv, uint32_t count, int32_t owner, int32_t page, int32_t valid) {
  uint32_t const stage = count % kStages, parity = (count / kStages) & 1;
#pragma unroll
  for (int step = 0; step < 3; ++step) {
    int const region = step == 1 ? kRope : ((step == 0) == (owner == 0) ? kRight : kLeft);
    int const first = region == kRope ? kRopeCopy : region * 2, copies = region == kRope ? 1 : 2;
    ptx::mbarrier_wait(s.empty[stage][region], parity ^ 1);
    if (step == 0) s.valid[stage] = valid;
#pragma unroll
    for (int i = 0; i < copies; ++i) {
      int const copy = first + i;
      uint64_t& full = s.full[stage][copy];
      if (valid > 0) {
        ptx::mbarrier_arrive_expect_tx(full, (region == kRope ? 1 : kCopyBoxes) * kBoxBytes);
        if (region == kRope) ptx::tma_load_4d(s.kv[stage][kLatentBoxes], kv.rope, full, make_int4(0, 0, 0, page));
        else ptx::tma_load_4d(s.kv[stage][copy * kCopyBoxes], kv.latent, full, make_int4(0, 0, copy * kCopyBoxes, page));
      } else {
        ptx::mbarrier_arrive(full);
      }
    }
  }
}

__device__ __forceinline__ void check_length(DenseDecodeParams const& params, Part const& part) {
  int32_t const length = params.call.kv_len[part.request];
  if (length == part.kv_len && (params.max_kv_len == 0 || length <= params.max_kv_len)) return;
  record_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, part.request, 0, length);
}

/// The part's Q; ahead of its KV, which would otherwise keep it waiting.
__device__ __forceinline__ void load_q(Shared& s, ptx::TmaSource const& q, Part const& part, uint32_t part_index) {
  ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
  ptx::mbarrier_arrive_expect_tx(s.q_full, kLatentBoxes * kBoxBytes);
  ptx::tma_load_4d(s.q, q, s.q_full, make_int4(0, part.row_begin, 0, part.request));
}

__device__ __forceinline__ void produce(Shared& s, TensorMaps const& maps, DenseDecodeParams const& params, CtaWalk walk) {
  int const lane = threadIdx.x % 32;
  // KV and Q are read once: they must not push the schedule, the tables and the kernel's own code out of L2.
  uint64_t const policy = ptx::evict_first_policy();
  KvSource const kv{{&maps.latent, policy}, {&maps.rope, policy}};
  uint32_t count = 0;
  int32_t const first_request = walk.request(), first_tile = walk.first_tile();
  int32_t const first_pages = walk.peek_page(lane);  // in flight together with the length
  Part part;
  for (uint32_t part_index = 0; walk.next(part); ++part_index) {
    if (lane == 0) {
      if (params.q_is_tensor) load_q(s, {&maps.q, policy}, part, part_index);
    }
    __syncwarp();
    int32_t const* const table = params.call.page_table + part.request * params.call.page_table_stride + part.first_tile;  // [num_tiles]
    auto const page_of = [&](int32_t tile) { return tile < part.num_tiles ? __ldg(table + tile) : 0; };
    int32_t pages = part_index == 0 && part.request == first_request && part.first_tile == first_tile ? first_pages : page_of(lane),
            next_pages = page_of(lane + 32);  // a window of 32 tiles, and the one after it
    for (int32_t i = 0; i < part.num_tiles; ++i, ++count) {
      if (i > 0 && i % 32 == 0) {
        pages = next_pages;
        next_pages = page_of(i + 32 + lane);
      }
      int32_t const page = __shfl_sync(0xffffffffU, pages, i % 32);
      bool const exists = page >= 0 && page < params.call.num_pages;
      int32_t const left = part.kv_len - (part.first_tile + i) * kTileTokens;
      if (lane == 0) {
        if (!exists) record_fault(params.workspace, FLASHMLA_FAULT_PAGE_ID, part.request, part.first_tile + i, page);
        load_tile(s, kv, count, i % 2, page, exists ? min(left, kTileTokens) : 0);
      }
      __syncwarp();
    }
    if (lane == 0) check_length(params, part);
  }
}

}  // namespace flashmla::cuda::dense_decode
