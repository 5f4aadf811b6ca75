// Loads of transposed/kernel.cuh: three warps walk the parts; two bring a side of every tile each, the third announces parts and brings Q.
//
// A short call waits for its start. So a uniform call's first tile and Q are asked for as soon as what they need is known, ahead of
// the walk.
#pragma once

#include "cuda/kernels/dense_decode_copies.cuh"
#include "cuda/kernels/dense_decode_producer.cuh"
#include "cuda/kernels/transposed/state.cuh"

namespace flashmla::cuda::dense_decode::transposed {

/// Where KV and Q come from.
struct Sources {
  TensorMaps const& maps;
  DenseDecodeParams const& params;
};

/// What a loading warp learns at once where it asks for its first tile ahead of the walk.
struct FirstWork {
  CtaWork work;
  bool has_item;
  int32_t length;  // of the first item's request, as the caller has it
  int32_t page;    // a lane a tile: of the first item's, from the worker's first tile on; of tiles past its end any number
};

template <Calls kCalls>
__device__ __forceinline__ FirstWork read_first_work(StartParams const& start) {
  ptx::grid_dependency_wait();  // schedule, lengths, tables, q and cache may be the work of the grids before
  ptx::grid_launch_dependents();
  auto const* const schedule = static_cast<char const*>(start.schedule);
  auto const* const begins = reinterpret_cast<core::WorkerBegin const*>(schedule + core::kScheduleBeginsOffset) + blockIdx.y;
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(schedule);
  core::WorkerBegin const begin = begins[0];
  FirstWork first{{begin, begins[1], header.batch, false, false}, false, 0, 0};
  auto const tile = static_cast<uint32_t>(begin.tile) + threadIdx.x % 32, page_tokens = static_cast<uint32_t>(start.page_tokens);
  uint32_t const entry = page_tokens == kTileTokens ? tile : tile / (page_tokens / kTileTokens);
  if (is_in_batch(start, begin)) {
    first.length = ptx::load_in_place(start.kv_len + begin.request);
    if (int64_t{entry} * page_tokens < start.length_limit)
      first.page = ptx::load_in_place(start.page_table + begin.request * start.page_table_stride + entry);
  }
  CtaWork& work = first.work;
  work.fits = is_of_call(header, start, kCalls == Calls::kAny ? kCtaRows : kRows);
  if (!work.fits) work.end = work.begin;  // nothing to do
  core::WorkerBegin const& end = work.end;
  first.has_item = is_in_batch(start, begin) && (begin.request != end.request     ? begin.request < end.request
                                                 : begin.row_tile != end.row_tile ? begin.row_tile < end.row_tile
                                                                                  : begin.tile < end.tile);
  return first;
}

/// Page of the lane's tile among the 32 from `first` on; 0 past the end.
__device__ __forceinline__ int32_t page_of_lane(StartParams const& start, Part const& part, int32_t first) {
  int32_t const tile = first + static_cast<int32_t>(threadIdx.x % 32);
  if (tile >= part.num_tiles) return 0;
  return PageTable(start, part).place_of(static_cast<uint32_t>(part.first_tile + tile) * kTileTokens).page;
}

/// Q of a part: `row` of all rows of its request, or where the call is ragged of all requests.
__device__ __forceinline__ void load_q(Shared& s, Sources const& from, int32_t row, int32_t request, uint32_t buffer) {
  uint32_t const full = ptx::shared_address(&s.q_full[buffer]);
  ptx::tma_load_5d({ptx::shared_address(s.q[buffer]), full, kBoxes * kRows * kSwizzleRowBytes}, {&from.maps.q, ptx::kEvictFirst},
                   {row, 0, 0, request});
  ptx::tma_load_more_5d({ptx::shared_address(s.q[buffer][kRopeBox]), full, 0}, {&from.maps.q_rope, ptx::kEvictFirst}, {row, 0, 0, request});
}

/// Says what comes next, a part or (request -1) that there are no more, and asks for the part's Q unless that `has_q`; where no tensor map
/// describes it, the multiplying warps copy it.
template <Calls kCalls>
__device__ __forceinline__ void announce(Shared& s, Sources const& from, Part const& part, uint32_t number, bool has_q, uint32_t& events) {
  DenseDecodeParams const& params = from.params;
  uint32_t const place = number % 2, parity = (number / 2 & 1) ^ 1;
  bool const exists = part.rows.request >= 0;
  ptx::mbarrier_wait(s.part_free[place], parity);
  if (threadIdx.x % 32 == 0) {
    s.parts[place] = part;
    if (exists && !part.is_whole() && !is_chunked<kCalls>(params)) s.items[events++ % 2] = {part.rows, part.split, part.num_splits};
    s.num_events = events;
    ptx::mbarrier_arrive(s.announced[place]);
    if (!exists) ptx::mbarrier_arrive(s.closed);
  }
  __syncwarp();
  if (!exists || has_q) return;
  ptx::mbarrier_wait(s.q_free[place], parity);
  if (!params.q_is_tensor) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(s.q_full[place]);
    return;
  }
  int32_t const row = (part.rows.first_token * params.start.kv_heads + part.rows.kv_head) * params.heads + part.rows.row_begin;
  load_q(s, from, row, params.start.is_ragged() ? 0 : part.rows.request, place);
}

/// A tile in the cache.
struct TilePlace {
  int32_t request, kv_head;
  int32_t token;  // its first of the request
  int32_t page;
  int32_t valid;  // leading tokens that are not past the end
};

/// A side of a tile into its stage, the right one with RoPE. Of a page that does not exist nothing is copied.
__device__ __forceinline__ void load_side(Shared& s, Sources const& from, TilePlace const& tile, uint32_t stage, int32_t side) {
  StartParams const& start = from.params.start;
  bool const has_page = PagePlace{tile.page, 0}.is_in(start);
  if (side == 0) s.valid[stage] = has_page ? tile.valid : 0;
  if (!has_page) {
    if (threadIdx.x % 32 != 0) return;
    if (side == 0) record_fault(from.params.workspace, FLASHMLA_FAULT_PAGE_ID, tile.request, tile.token / start.page_tokens, tile.page);
    ptx::mbarrier_arrive(s.full[stage][side]);
    if (side == 1) ptx::mbarrier_arrive(s.full[stage][kRope]);
    return;
  }
  int32_t const in_page = start.page_tokens == kTileTokens ? 0 : tile.token % start.page_tokens;
  if (side == 1)
    ptx::tma_load_5d({ptx::shared_address(s.kv[stage][kRopeBox]), ptx::shared_address(&s.full[stage][kRope]), kBoxBytes},
                     {&from.maps.rope, ptx::kEvictFirst}, {in_page, 0, tile.kv_head, tile.page});
  ptx::tma_load_5d({ptx::shared_address(s.kv[stage][side * kSideBoxes]), ptx::shared_address(&s.full[stage][side]), kSideBoxes * kBoxBytes},
                   {&from.maps.latent, ptx::kEvictFirst}, {in_page, side * kSideBoxes, tile.kv_head, tile.page});
}

/// Ahead of the walk, where a worker's first item is that of its schedule whatever the call: loaders 0 and 1 ask for the first tile's side,
/// loader 2 for Q. Whether it did.
template <Calls kCalls>
__device__ __forceinline__ bool load_first(Shared& s, Sources const& from, FirstWork const& first, int32_t loader) {
  StartParams const& start = from.params.start;
  if (kCalls == Calls::kAny || !first.has_item || start.kv_heads > 1) return false;
  core::WorkerBegin const& begin = first.work.begin;
  if (loader == 2) {
    if (from.params.q_is_tensor) load_q(s, from, begin.row_tile * kRows, begin.request, 0);
    return from.params.q_is_tensor != 0;
  }
  int32_t const page = static_cast<int32_t>(uniform(first.page)), token = begin.tile * kTileTokens;
  int32_t const left = core::clamp_length(first.length, start.length_limit) - token;
  if (left <= 0 || !PagePlace{page, 0}.is_in(start)) return false;
  load_side(s, from, {begin.request, 0, token, page, min(left, kTileTokens)}, 0, loader);
  return true;
}

template <Calls kCalls, class Walk>
__device__ __forceinline__ void load(Shared& s, Sources const& from, Walk& walk, FirstWork const& first, int32_t loader) {
  uint32_t count = 0, events = 0;
  bool const has_first = load_first<kCalls>(s, from, first, loader);
  Part part;
#pragma unroll 1
  for (uint32_t number = 0;; ++number) {
    bool const has_part = walk.next(part);
    if (!has_part) part.rows.request = -1, part.num_tiles = 0;
    if (loader == 2) {
      announce<kCalls>(s, from, part, number, has_first && number == 0, events);
      if (!has_part) return;
      if (threadIdx.x % 32 == 0) check_length(from.params, part.rows.request);
      continue;
    }
    if (!has_part) return;
    int32_t pages[2] = {first.page, 0};
    if (number > 0 || part.rows.request != first.work.begin.request || part.first_tile != first.work.begin.tile)
      pages[0] = page_of_lane(from.params.start, part, 0);
    if (part.num_tiles > 32) pages[1] = page_of_lane(from.params.start, part, 32);
#pragma unroll 1
    for (int32_t tile = 0; tile < part.num_tiles; ++tile, ++count) {
      if (has_first && count == 0) continue;
      if (tile > 0 && tile % 32 == 0) pages[0] = pages[1], pages[1] = page_of_lane(from.params.start, part, tile + 32);
      auto const page = static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, pages[0], tile % 32)));
      uint32_t const stage = count % kStages;
      int32_t const token = (part.first_tile + tile) * kTileTokens;
      ptx::mbarrier_wait(s.empty[stage], (count / kStages & 1) ^ 1);
      load_side(s, from, {part.rows.request, part.rows.kv_head, token, page, min(part.kv_len - token, kTileTokens)}, stage, loader);
    }
  }
}

}  // namespace flashmla::cuda::dense_decode::transposed
