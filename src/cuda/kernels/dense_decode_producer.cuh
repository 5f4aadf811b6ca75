// The producer of dense_decode.cuh: Q and pages into shared memory by TMA, ahead of the consumers.
#pragma once

#include "cuda/kernels/dense_decode_copies.cuh"

namespace flashmla::cuda::dense_decode {

inline constexpr int kFirstPublisher = 1;  // the warp of the producers' that publishes the CTA's first partial result; the next its second

/// What the producer learns once the grids before have finished: where its CTA's work begins and ends.
struct CtaWork {
  core::WorkerBegin begin, end;
  int32_t batch;   // the schedule's
  bool fits;       // the schedule belongs to this call
  bool are_pairs;  // every item has two workers of its own
};

/// Whether a schedule is one for this call, whose row tiles have `tile_rows`.
__device__ __forceinline__ bool is_of_call(core::ScheduleHeader const& schedule, StartParams const& start, int32_t tile_rows) {
  uint32_t const magic = core::schedule_magic(static_cast<int32_t>(gridDim.y), start.kv_heads);
  return schedule.magic == magic && schedule.batch == start.batch && schedule.q_tokens == start.q_tokens &&
         schedule.num_row_tiles == start.num_row_tiles && schedule.tile_rows == tile_rows && schedule.tile_tokens == kTileTokens;
}

__device__ __forceinline__ CtaWork read_work(StartParams const& start) {
  ptx::grid_dependency_wait();  // schedule, lengths, tables, q and cache may be the work of the grids before
  ptx::grid_launch_dependents();
  auto const* const schedule = static_cast<char const*>(start.schedule);
  auto const* const begins = reinterpret_cast<core::WorkerBegin const*>(schedule + core::kScheduleBeginsOffset) + blockIdx.y;
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(schedule);
  CtaWork work{begins[0], begins[1], header.batch, false, header.workers_per_item == 2};
  touch_first_pages(start, work.begin);
  work.fits = is_of_call(header, start, start.group * kCtaRows);
  if (!work.fits) work.end = work.begin;  // nothing to do
  return work;
}

__device__ __forceinline__ void check_length(DenseDecodeParams const& params, int32_t request) {
  int32_t const length = params.call.kv_len[request];
  if (length == core::clamp_length(length, params.start.length_limit)) return;
  record_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, request, 0, length);
}

/// Records offsets and lengths that had to be clamped: nobody walks requests without query tokens. A warp of every worker.
__device__ __forceinline__ void check_ragged_requests(DenseDecodeParams const& params) {
  core::QueryBounds const bounds = params.call.query_bounds();
  auto const step = static_cast<int32_t>(gridDim.y * 32);
  for (int32_t request = static_cast<int32_t>(blockIdx.y * 32 + threadIdx.x % 32); request < params.start.batch; request += step) {
    int32_t const* const offsets = bounds.q_offsets + request;
    int32_t const bad = core::bad_query_offset(bounds, offsets[0], offsets[1]);
    if (bad >= 0) record_fault(params.workspace, FLASHMLA_FAULT_Q_OFFSETS, request, request + bad, offsets[bad]);
    check_length(params, request);
  }
}

/// How a part follows the one before.
struct Follows {
  bool same_rows;  // Q is there already
  bool at_once;    // it need not wait for the other's last products
};

/// The next chunk of the same rows finds Q in place. Where both parts have three tiles and more, it is announced at once: the third
/// tile of the part before has been asked for, so both warpgroups have let go of that part's first tile, and have left the part whose place
/// in `parts` this one takes. The wait for the last products comes ahead of its own third tile then, which has to wait longer anyway.
template <Calls kCalls>
__device__ __forceinline__ Follows follows(DenseDecodeParams const& params, Part const& part, Part const& before) {
  if (!is_chunked<kCalls>(params)) return {false, false};
  RowSpan const &rows = part.rows, &other = before.rows;
  bool const same_rows =
      rows.request >= 0 && rows.request == other.request && rows.row_begin == other.row_begin && rows.kv_head == other.kv_head;
  return {same_rows, same_rows && part.num_tiles > kStages && before.num_tiles > kStages};
}

/// Says what comes next, and asks for the part's Q ahead of its KV, which would otherwise keep it waiting.
template <Calls kCalls, int kLatent>
__device__ __forceinline__ void announce(Shared& s, Sources const& from, Part const& part, Follows const& how, uint32_t part_index,
                                         uint32_t& events) {
  bool const is_shared = part.rows.request >= 0 && !part.is_whole() && !is_chunked<kCalls>(from.params) && !part.is_exchanged;
  bool const asks = from.params.q_is_tensor && !how.same_rows;
  if (!how.at_once) ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
  if (threadIdx.x % 32 == 0) {
    s.parts[part_index % 2] = part;
    if (is_shared) s.items[events] = {part.rows, part.split, part.num_splits};
    for (uint32_t event = events; event < 2 && part.rows.request < 0; ++event) s.items[event].num_splits = 0;  // there are no more
    ptx::mbarrier_arrive(s.announced);
    if (!asks && part.rows.request >= 0) ptx::mbarrier_arrive(s.q_full);
  }
  if (is_shared) ++events;
  __syncwarp();
  if (asks && part.rows.request >= 0)
    ptx::tma_load_5d({ptx::shared_address(s.q), ptx::shared_address(&s.q_full), kLatentBoxes<kLatent> * kBoxBytes},
                     {&from.maps.q, from.policy},
                     {(part.rows.first_token * from.params.start.kv_heads + part.rows.kv_head) * from.params.heads + part.rows.row_begin, 0,
                      0, from.params.start.is_ragged() ? 0 : part.rows.request});
}

/// Says to the GPU that the CTA's part of an item is in memory. One thread, once `stored` has completed.
__device__ __forceinline__ void publish(Shared& s, DenseDecodeParams const& params, int32_t event) {
  SharedItem const& item = s.items[event];
  if (item.num_splits > 0) s.merges_all[event] = arrive_at_item(params, item) ? 1U : 0U;
}

/// Loader 0 walks the parts, announces them and asks for Q; all loaders bring their share of the tiles. Loader `kFirstPublisher`
/// looks after each tile whether the CTA's first partial result is stored, and publishes it: true if it did.
template <Paging kPaging, Calls kCalls, int kLatent, class Walk>
__device__ __forceinline__ bool produce(Shared& s, Sources const& from, Walk walk, int32_t loader) {
  int const lane = threadIdx.x % 32;
  uint32_t count = 0, events = 0;
  Part part{};
  part.rows.request = -1;
  bool has_part = true, has_published = false;
  for (uint32_t part_index = 0; has_part; ++part_index) {
    Part const before = part;
    has_part = walk.next(part);
    if (!has_part) part.rows.request = -1, part.num_tiles = 0;
    TileLoader<kPaging, kLatent> tiles(from, part, lane, loader);
    Follows const how = follows<kCalls>(from.params, part, before);
    if (loader == 0) announce<kCalls, kLatent>(s, from, part, how, part_index, events);
    for (int32_t i = 0; i < part.num_tiles; ++i, ++count) {
      // Announced without this wait; here no phase of q_free can be ahead of it, since the part's last tile has not been asked for.
      if (how.at_once && loader == 0 && i == kStages) ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
      tiles.load(s, {count, i, min(part.kv_len - (part.first_tile + i) * kTileTokens, kTileTokens)});
      if (kLoaders<kPaging> > 1 && loader == kFirstPublisher && !has_published && uniform(ptx::mbarrier_test(s.stored[0], 0)) != 0) {
        if (lane == 0) publish(s, from.params, 0);
        has_published = true;
      }
    }
    if (loader == 0 && lane == 0 && has_part) check_length(from.params, part.rows.request);
  }
  return has_published;
}

/// Warp 9 + event, one thread, when the CTA's last tile is on its way: publishes a part that other CTAs wait for, so that no
/// consumer waits for its own stores, and waits for theirs.
template <Calls kCalls>
__device__ __forceinline__ void gather_item(Shared& s, DenseDecodeParams const& params, int32_t event, bool has_published) {
  ptx::mbarrier_wait(s.stored[event], 0);
  if (!has_published) publish(s, params, event);
  SharedItem const item = s.items[event];
  if (item.num_splits == 0) return;
  ptx::mbarrier_wait(s.stored[1], 0);
  bool const is_complete = wait_for_parts(params, item);
  s.can_merge[event] = is_complete && (kCalls == Calls::kFew || !is_taken(params, item)) ? 1U : 0U;
  ptx::mbarrier_arrive(s.mergeable[event]);
  leave_item(params, item);
}

}  // namespace flashmla::cuda::dense_decode
