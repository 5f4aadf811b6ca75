// Loads of scored/kernel.cuh: the first warp of each output warpgroup brings its side of every tile, ahead of the other roles.
//
// What a worker loads is one sequence over all its parts: each part's Q (unless it is that of the part before), then its tiles. The left side
// of a tile is a copy of four latent boxes, the right side one of the other four and RoPE; where a tile has several pages, a copy of each.
// Each side goes into the next stage of the ring as soon as it has been let go there; of the right side all output warps let go, so Q, which
// takes all of a stage, is the right side's.
//
// No function call stands here: 128 registers of O are alive.
#pragma once

#include "cuda/kernels/dense_decode_copies.cuh"
#include "cuda/kernels/scored/state.cuh"

namespace flashmla::cuda::dense_decode::scored {

/// Where KV and Q come from.
struct Sources {
  TensorMaps const& maps;
  DenseDecodeParams const& params;
  uint64_t policy;  // of KV in L2
};

/// KV is read once by each of the CTAs in step, by one somewhat later than by the other. In batch-invariant calls the partial results of all
/// chunks pass through L2, and what is to be the first to leave is gone by then: 96 heads took a quarter longer. In others it would be
/// partial results that leave before they are merged: a skewed batch took 6 % longer.
template <Calls kCalls>
__device__ __forceinline__ uint64_t kv_policy(DenseDecodeParams const& params) {
  return is_chunked<kCalls>(params) ? ptx::kEvictNormal : ptx::kEvictFirst;
}

/// A loading warp's place in the sequence. Pages: a lane each, of the 32 around the next tile's and of the 32 behind them.
struct Feed {
  int32_t side;
  int32_t left = 0;        // places of the part that is being loaded still to come
  int32_t tile = 0;        // the next one's tile; -1: Q
  int32_t free = kStages;  // stages that nothing is on its way to
  uint32_t part = ~0U;     // number of the part that is being loaded
  int32_t pages[2] = {0, 0};
};

/// What is looked up of a tile ahead of the stage that it goes into.
struct TileCopy {
  int32_t page;          // where tiles have several, of lane i the i-th
  int32_t valid = -1;    // leading tokens of the tile; 0: it is one page, which does not exist; -1: there is no tile to copy
  uint32_t missing = 0;  // a bit a page of several that does not exist
};

/// The stage that the next place goes into. `oldest`: the one that will be let go next.
__device__ __forceinline__ uint32_t next_stage(Feed const& feed, RingPosition const& oldest) {
  uint32_t const slot = oldest.slot + kStages - static_cast<uint32_t>(feed.free);
  return slot < kStages ? slot : slot - kStages;
}

/// Pages of a part's tiles, in order: a tile's page, or where tiles have several these. The lane's among the 32 from `first` on; 0 past the end.
template <Paging kPaging>
__device__ __forceinline__ int32_t page_of_lane(StartParams const& start, Part const& part, int32_t first) {
  int32_t const index = first + static_cast<int32_t>(threadIdx.x % 32);
  if constexpr (kPaging == Paging::kTiles) {
    if (index >= part.num_tiles) return 0;
    return PageTable(start, part).place_of(static_cast<uint32_t>(part.first_tile + index) * kTileTokens).page;
  } else {
    if (index >= part.num_tiles * pages_of_tile(start)) return 0;
    return PageTable(start, part).place_of(static_cast<uint32_t>(part.first_tile * kTileTokens + index * start.page_tokens)).page;
  }
}

/// The part's Q into a stage as its 576 columns, all by the right side, for which the whole stage is free; where no tensor map describes
/// it, the score warpgroup copies it there.
__device__ __forceinline__ void load_q(Shared& s, Sources const& from, Feed const& feed, Part const& part, uint32_t slot) {
  DenseDecodeParams const& params = from.params;
  if (!params.q_is_tensor || feed.side == 0) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(s.full[slot][feed.side]);
    return;
  }
  int32_t const row = (part.rows.first_token * params.start.kv_heads + part.rows.kv_head) * params.heads + part.rows.row_begin;
  int32_t const request = params.start.is_ragged() ? 0 : part.rows.request;
  uint32_t const full = ptx::shared_address(&s.full[slot][1]);
  ptx::tma_load_5d({ptx::shared_address(s.kv[slot]), full, kBoxes * kBoxBytes}, {&from.maps.q, ptx::kEvictFirst}, {row, 0, 0, request});
  ptx::tma_load_more_5d({ptx::shared_address(s.kv[slot][kRopeBox]), full, 0}, {&from.maps.q_rope, ptx::kEvictFirst}, {row, 0, 0, request});
}

/// Looks up the next place of the sequence, a tile. A page that does not exist is recorded.
template <Paging kPaging>
__device__ __forceinline__ TileCopy look_up(Sources const& from, Feed& feed, Part const& part) {
  StartParams const& start = from.params.start;
  int32_t const each = kPaging == Paging::kTiles ? 1 : pages_of_tile(start), first = feed.tile * each;
  if (feed.tile > 0 && first % 32 == 0) feed.pages[0] = feed.pages[1], feed.pages[1] = page_of_lane<kPaging>(start, part, first + 32);
  int32_t const token = (part.first_tile + feed.tile) * kTileTokens;
  if constexpr (kPaging != Paging::kTiles) {
    int32_t const lane = static_cast<int32_t>(threadIdx.x % 32), valid = min(part.kv_len - token, kTileTokens);
    int32_t const page = __shfl_sync(0xffffffffU, feed.pages[0], (first + lane) % 32);
    uint32_t const missing = __ballot_sync(0xffffffffU, lane * start.page_tokens < valid && !PagePlace{page, 0}.is_in(start));
    if (missing != 0 && static_cast<int32_t>(threadIdx.x) + 1 == __ffs(static_cast<int>(missing)))
      keep_fault(from.params.workspace, FLASHMLA_FAULT_PAGE_ID, part.rows.request, token / start.page_tokens + lane, page);
    return {page, valid, missing};
  }
  int32_t const page = static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, feed.pages[0], first % 32)));
  if (page >= 0 && page < start.num_pages) return {page, min(part.kv_len - token, kTileTokens)};
  if (threadIdx.x == 0) keep_fault(from.params.workspace, FLASHMLA_FAULT_PAGE_ID, part.rows.request, token / start.page_tokens, page);
  return {page, 0};
}

/// A side of a tile of several pages into a stage, in the order of StageLayout; of pages that do not exist TMA makes zeros. No register is kept for
/// what can be worked out here.
__device__ __forceinline__ void load_pages(Shared& s, Sources const& from, int32_t side, TileCopy const& tile, uint32_t slot) {
  auto const page_tokens = static_cast<uint32_t>(from.params.start.page_tokens);
  uint32_t const used = (static_cast<uint32_t>(tile.valid) + page_tokens - 1) / page_tokens;
  uint32_t const latent_bytes = page_tokens * kSideBoxes * kSwizzleRowBytes, rope_bytes = page_tokens * kSwizzleRowBytes;
  uint32_t const full = ptx::shared_address(&s.full[slot][side]), bytes = used * (latent_bytes + (side == 0 ? 0 : rope_bytes));
#pragma unroll
  for (uint32_t i = 0; i < kMostTilePages; ++i) {
    if (i >= used) break;
    auto const page = static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, tile.page, static_cast<int>(i))));
    ptx::TmaTarget const to{ptx::shared_address(s.kv[slot][side * kSideBoxes]) + i * latent_bytes, full, bytes};
    ptx::TmaSource const latent{&from.maps.latent, from.policy};
    if (i == 0) ptx::tma_load_5d(to, latent, {0, side * kSideBoxes, 0, page});
    else ptx::tma_load_more_5d(to, latent, {0, side * kSideBoxes, 0, page});
    if (side == 1)
      ptx::tma_load_more_5d({ptx::shared_address(s.kv[slot][kRopeBox]) + i * rope_bytes, full, 0}, {&from.maps.rope, from.policy},
                            {0, 0, 0, page});
  }
}

/// A side of a tile into a stage. Of a page that does not exist nothing is copied. How many tokens there are, the right side says: when the
/// left one is free, the right warpgroup may still need what was said of the tile before.
template <Paging kPaging>
__device__ __forceinline__ void load_side(Shared& s, Sources const& from, Feed& feed, TileCopy const& tile, uint32_t slot) {
  int32_t const side = feed.side;
  StartParams const& start = from.params.start;
  Part const& part = s.parts[feed.part % 2];
  if (side == 1) s.tokens[slot].valid = static_cast<uint8_t>(tile.valid);
  if constexpr (kPaging != Paging::kTiles) {
    if (side == 1) s.tokens[slot].missing = static_cast<uint8_t>(tile.missing);
    load_pages(s, from, side, tile, slot);
  } else if (tile.valid == 0) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(s.full[slot][side]);
  } else {
    // Rarely asked for, so not kept in registers.
    int32_t const in_page =
        start.page_tokens == kTileTokens ? 0 : (part.first_tile + feed.tile) % (start.page_tokens / kTileTokens) * kTileTokens;
    int32_t const kv_head = start.kv_heads == 1 ? 0 : part.rows.kv_head;
    uint32_t const full = ptx::shared_address(&s.full[slot][side]);
    uint32_t const bytes = (side == 0 ? kSideBoxes : kSideBoxes + 1) * kBoxBytes;
    ptx::tma_load_5d({ptx::shared_address(s.kv[slot][side * kSideBoxes]), full, bytes}, {&from.maps.latent, from.policy},
                     {in_page, side * kSideBoxes, kv_head, tile.page});
    if (side == 1)
      ptx::tma_load_more_5d({ptx::shared_address(s.kv[slot][kRopeBox]), full, 0}, {&from.maps.rope, from.policy},
                            {in_page, 0, kv_head, tile.page});
  }
  ++feed.tile, --feed.left;
}

/// Ahead of the stage that it will fill: the next place, if that is a tile of the part that is being loaded.
template <Paging kPaging>
__device__ __forceinline__ TileCopy prepare(Shared& s, Sources const& from, Feed& feed) {
  if (feed.left == 0 || feed.tile < 0 || feed.free > 0) return {};
  return look_up<kPaging>(from, feed, s.parts[feed.part % 2]);
}

/// Fills free stages with places of part `current`, which all output warps know, and if `may_pass` with those of the next. Parts before
/// `current` have nothing left to load, and what is in `parts` is not theirs any more.
template <Paging kPaging>
__device__ __forceinline__ void fill(Shared& s, Sources const& from, Feed& feed, RingPosition const& oldest, uint32_t current,
                                     bool may_pass) {
#pragma unroll 1
  while (feed.free > 0) {
    if (feed.left == 0) {
      uint32_t const last = current + (may_pass ? 1U : 0U);
      if (feed.part == last) return;
      feed.part = feed.part == current ? last : current;
      if (feed.part != current) ptx::mbarrier_wait(s.announced, feed.part & 1);
      Part const& part = s.parts[feed.part % 2];
      if (part.num_tiles == 0) continue;  // also at the end
      feed.tile = part.keeps_q ? 0 : -1;
      feed.left = part.num_tiles - feed.tile;
      feed.pages[0] = page_of_lane<kPaging>(from.params.start, part, 0);
      feed.pages[1] = page_of_lane<kPaging>(from.params.start, part, 32);
    }
    Part const& part = s.parts[feed.part % 2];
    uint32_t const slot = next_stage(feed, oldest);
    --feed.free;
    if (feed.tile >= 0) {
      load_side<kPaging>(s, from, feed, look_up<kPaging>(from, feed, part), slot);
    } else {
      load_q(s, from, feed, part, slot);
      feed.tile = 0, --feed.left;
    }
  }
}

/// A stage has become free: takes up what was prepared for it.
template <Paging kPaging>
__device__ __forceinline__ void refill(Shared& s, Sources const& from, Feed& feed, TileCopy const& prepared, uint32_t slot) {
  if (prepared.valid >= 0) load_side<kPaging>(s, from, feed, prepared, slot);
  else ++feed.free;
}

}  // namespace flashmla::cuda::dense_decode::scored
