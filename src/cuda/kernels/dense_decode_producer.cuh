// The producer of dense_decode.cuh: Q and pages into shared memory by TMA, ahead of the consumers.
#pragma once

#include "cuda/kernels/dense_decode_state.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"

namespace flashmla::cuda::dense_decode {

/// Where KV and Q come from. They are read once: they must not push the schedule, the tables and the kernel's own code out of L2.
struct Sources {
  TensorMaps const& maps;
  DenseDecodeParams const& params;
  uint64_t policy;
};

/// A tile to load: the how many-th of the CTA's, for which warpgroup, and its leading tokens that exist.
struct TileLoad {
  uint32_t count;
  int32_t owner, page, valid;
};

/// One tile into its stage, copy by copy. The half that the tile's owner does not multiply is let go first, and the owner
/// reads the copies in the same order. A loop, since what runs first in a CTA waits for every instruction.
__device__ __forceinline__ void load_tile(Shared& s, Sources const& from, TileLoad const& tile) {
  uint32_t const stage = tile.count % kStages, parity = (tile.count / kStages & 1) ^ 1;
  uint32_t order = tile.owner == 0 ? 0x10432U : 0x32410U;  // copies, the first in the lowest digit
#pragma unroll 1
  for (int step = 0; step < kCopies; ++step, order >>= 4) {
    uint32_t const copy = order & 15U;
    bool const is_rope = copy == kRopeCopy;
    uint64_t& full = s.full[stage][copy];
    ptx::mbarrier_wait(s.empty[stage][copy / 2], parity);
    if (step == 0) s.valid[stage] = tile.valid;
    if (tile.valid > 0) {
      ptx::mbarrier_arrive_expect_tx(full, is_rope ? kBoxBytes : kCopyBoxes * kBoxBytes);
      ptx::tma_load_4d(s.kv[stage][copy * kCopyBoxes], {is_rope ? &from.maps.rope : &from.maps.latent, from.policy}, full,
                       make_int4(0, 0, is_rope ? 0 : static_cast<int>(copy) * kCopyBoxes, tile.page));
    } else {
      ptx::mbarrier_arrive(full);
    }
  }
}

__device__ __forceinline__ void check_length(DenseDecodeParams const& params, Part const& part) {
  int32_t const length = params.call.kv_len[part.request];
  if (length == part.kv_len && (params.max_kv_len == 0 || length <= params.max_kv_len)) return;
  record_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, part.request, 0, length);
}

/// Says what comes next, and asks for the part's Q ahead of its KV, which would otherwise keep it waiting.
__device__ __forceinline__ void announce(Shared& s, Sources const& from, Part const& part, uint32_t part_index, uint32_t& events) {
  ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
  s.parts[part_index % 2] = part;
  if (part.request >= 0 && !part.is_whole()) s.items[events++] = {part.request, part.row_begin, part.split, part.num_splits};
  ptx::mbarrier_arrive(s.announced);
  if (part.request < 0) return;
  if (from.params.q_is_tensor) {
    ptx::mbarrier_arrive_expect_tx(s.q_full, kLatentBoxes * kBoxBytes);
    ptx::tma_load_4d(s.q, {&from.maps.q, from.policy}, s.q_full, make_int4(0, part.row_begin, 0, part.request));
  } else {
    ptx::mbarrier_arrive(s.q_full);
  }
}

__device__ __forceinline__ void produce(Shared& s, TensorMaps const& maps, DenseDecodeParams const& params, core::WorkerBegin const& begin,
                                        CtaWalk walk, int32_t first_page) {
  int const lane = threadIdx.x % 32;
  StartParams const& start = params.start;
  Sources const from{maps, params, ptx::evict_first_policy()};
  uint32_t count = 0, events = 0;
  Part part;
  bool has_part = true;
  for (uint32_t part_index = 0; has_part; ++part_index) {
    has_part = walk.next(part);
    if (!has_part) part.request = -1, part.num_tiles = 0;
    int32_t const* const table = start.page_table + part.request * start.page_table_stride + part.first_tile;  // [num_tiles]
    auto const page_of = [&](int32_t tile) { return tile < part.num_tiles ? __ldg(table + tile) : 0; };
    bool const is_first = part.request == begin.request && part.first_tile == begin.tile;
    int32_t pages = is_first ? first_page : page_of(lane), next_pages = page_of(lane + 32);  // a window of 32 tiles, and the one after it
    if (lane == 0) announce(s, from, part, part_index, events);
    __syncwarp();
    for (int32_t i = 0; i < part.num_tiles; ++i, ++count) {
      if (i > 0 && i % 32 == 0) {
        pages = next_pages;
        next_pages = page_of(i + 32 + lane);
      }
      int32_t const page = __shfl_sync(0xffffffffU, pages, i % 32);
      bool const exists = page >= 0 && page < start.num_pages;
      int32_t const left = part.kv_len - (part.first_tile + i) * kTileTokens;
      if (lane == 0) {
        if (!exists) record_fault(params.workspace, FLASHMLA_FAULT_PAGE_ID, part.request, part.first_tile + i, page);
        load_tile(s, from, {count, i % 2, page, exists ? min(left, kTileTokens) : 0});
      }
      __syncwarp();
    }
    if (lane == 0 && has_part) check_length(params, part);
  }
  if (lane != 0) return;
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    s.can_merge[event] = wait_for_parts(params, s.items[event]) ? 1U : 0U;
    ptx::mbarrier_arrive(s.mergeable[event]);
  }
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) leave_item(params, s.items[event]);
}

}  // namespace flashmla::cuda::dense_decode
