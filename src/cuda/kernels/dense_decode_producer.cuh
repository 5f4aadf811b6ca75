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
/// reads the copies in the same order. A warp with equal operands.
__device__ __forceinline__ void load_tile(Shared& s, Sources const& from, TileLoad const& tile) {
  uint32_t const stage = tile.count % kStages, parity = (tile.count / kStages & 1) ^ 1;
  uint32_t const first_half = tile.owner == 0 ? kRight : kLeft;
#pragma unroll
  for (int step = 0; step < kCopies; ++step) {
    bool const is_rope = step == 2;
    uint32_t const half = step < 2 ? first_half : 1 - first_half;
    uint32_t const copy = is_rope ? kRopeCopy : half * 2 + (step < 2 ? step : step - 3);
    if (step != 1 && step != 4) ptx::mbarrier_wait(s.empty[stage][copy / 2], parity);
    if (step == 0) s.valid[stage] = tile.valid;
    uint64_t& full = s.full[stage][copy];
    if (tile.valid > 0) {
      ptx::TmaTarget const target{ptx::shared_address(s.kv[stage][copy * kCopyBoxes]), ptx::shared_address(&full),
                                  static_cast<uint32_t>(is_rope ? kBoxBytes : kCopyBoxes * kBoxBytes)};
      int32_t const box = is_rope ? 0 : static_cast<int32_t>(copy) * kCopyBoxes;
      ptx::tma_load_4d(target, {is_rope ? &from.maps.rope : &from.maps.latent, from.policy}, make_int4(0, 0, box, tile.page));
    } else if (threadIdx.x % 32 == 0) {
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
  bool const is_shared = part.request >= 0 && !part.is_whole();
  ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
  if (threadIdx.x % 32 == 0) {
    s.parts[part_index % 2] = part;
    if (is_shared) s.items[events] = {part.request, part.row_begin, part.split, part.num_splits};
    for (uint32_t event = events; event < 2 && part.request < 0; ++event) s.items[event].num_splits = 0;  // there are no more
    ptx::mbarrier_arrive(s.announced);
    if (!from.params.q_is_tensor && part.request >= 0) ptx::mbarrier_arrive(s.q_full);
  }
  if (is_shared) ++events;
  __syncwarp();
  if (from.params.q_is_tensor && part.request >= 0)
    ptx::tma_load_4d({ptx::shared_address(s.q), ptx::shared_address(&s.q_full), kLatentBoxes * kBoxBytes}, {&from.maps.q, from.policy},
                     make_int4(0, part.row_begin, 0, part.request));
}

__device__ __forceinline__ void produce(Shared& s, TensorMaps const& maps, DenseDecodeParams const& params, CtaWalk walk) {
  int const lane = threadIdx.x % 32;
  StartParams const& start = params.start;
  Sources const from{maps, params, ptx::kEvictFirst};
  uint32_t count = 0, events = 0;
  Part part;
  bool has_part = true;
  for (uint32_t part_index = 0; has_part; ++part_index) {
    has_part = walk.next(part);
    if (!has_part) part.request = -1, part.num_tiles = 0;
    int32_t const* const table = start.page_table + part.request * start.page_table_stride + part.first_tile;  // [num_tiles]
    auto const page_of = [&](int32_t tile) { return tile < part.num_tiles ? __ldg(table + tile) : 0; };
    int32_t pages = page_of(lane), next_pages = page_of(lane + 32);  // a window of 32 tiles, and the one after it
    announce(s, from, part, part_index, events);
    for (int32_t i = 0; i < part.num_tiles; ++i, ++count) {
      if (i > 0 && i % 32 == 0) {
        pages = next_pages;
        next_pages = page_of(i + 32 + lane);
      }
      int32_t const page = static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, pages, i % 32)));
      bool const exists = page >= 0 && page < start.num_pages;
      int32_t const left = part.kv_len - (part.first_tile + i) * kTileTokens;
      if (!exists && lane == 0) record_fault(params.workspace, FLASHMLA_FAULT_PAGE_ID, part.request, part.first_tile + i, page);
      load_tile(s, from, {count, i % 2, page, exists ? min(left, kTileTokens) : 0});
    }
    if (lane == 0 && has_part) check_length(params, part);
  }
}

/// Warp 9 + event, one thread: publishes a part that other CTAs wait for, so that no consumer waits for its own stores, and
/// once the CTA has no tiles left waits for theirs.
__device__ __forceinline__ void publish_part(Shared& s, DenseDecodeParams const& params, int32_t event) {
  ptx::mbarrier_wait(s.stored[event], 0);
  SharedItem const item = s.items[event];
  if (item.num_splits == 0) return;
  s.merges_all[event] = arrive_at_item(params, item) ? 1U : 0U;
  ptx::mbarrier_wait(s.stored[1], 0);
  s.can_merge[event] = wait_for_parts(params, item) ? 1U : 0U;
  ptx::mbarrier_arrive(s.mergeable[event]);
  leave_item(params, item);
}

}  // namespace flashmla::cuda::dense_decode
