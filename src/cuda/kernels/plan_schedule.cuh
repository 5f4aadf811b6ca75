// The planner on the device: one block turns the lengths of a step into its schedule.
//
// Math: core/planner.hpp; the result equals core::make_schedule bit for bit. With T(r) the token tiles of requests before
//   r, request r starts on the line of costs at row_tiles * (part_cost * r + tile_cost * T(r)), so a scan over tiles is all.
//   Ragged requests have row tiles of their own: they start at part_cost * I(r) + tile_cost * T(r), I(r) being the items of
//   the requests before and T(r) the tiles of these items. An instance each, so that uniform batches pay nothing for it.
// Roles: thread t sums the tiles of `run` consecutive requests; thread w < workers places worker w.
// Timeline: lengths -> scan of tiles, longest request -> cuts -> (worker) search its run, its request, its row tile, its
//   token tile -> split items in the order of their workers. No cuts and no search when every item is one worker's; ragged
//   items are searched then as well, by their number.
// Shared memory: 11 KB: int64 tiles before each run [1025], cuts [kMaxWorkers + 1], sums and counts a warp. Ragged: 15 KB, items
//   before each run [1025] beside it.
// Barriers: __syncthreads between the steps.
// Registers: no constraint; one block.
// Limits: max_workers <= kMaxWorkers; any batch.
#pragma once

#include <cstdint>

#include "core/parts.hpp"
#include "core/planner.hpp"
#include "core/schedule.hpp"
#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/plan_schedule.hpp"

namespace flashmla::cuda::plan_schedule {

inline constexpr int kMaxThreads = 1024;

/// Items before each thread's run; uniform requests need none.
template <bool kRagged>
struct ItemSums {};
template <>
struct ItemSums<true> {
  int32_t items_before[kMaxThreads + 1];  // last: all
  int32_t warp_items[kMaxThreads / 32];
};

template <bool kRagged>
struct Smem : ItemSums<kRagged> {
  int64_t tiles_before[kMaxThreads + 1];  // token tiles before each thread's run, uniform: of one row tile; last: all
  int64_t cuts[kMaxWorkers + 1];          // [workers + 1]
  int64_t warp_tiles[kMaxThreads / 32];
  int32_t warp_splits[kMaxThreads / 32];   // split items that begin in each warp's workers
  int32_t warp_longest[kMaxThreads / 32];  // the most tiles of an item in each warp's runs
};

/// Items and tiles in front of a request, or those of one.
struct Amount {
  int64_t tiles;  // uniform: of one row tile
  int32_t items;  // ragged only
};

template <bool kRagged>
__device__ inline Amount amount_of(PlanScheduleParams const& p, int32_t request) {
  int32_t const tiles = core::num_token_tiles(p.shape, p.kv_len[request]);
  if constexpr (kRagged) {
    core::QueryTokens const tokens = core::query_tokens({p.q_offsets, p.q_tokens, INT32_MAX}, request);
    int32_t const items = core::num_row_tiles(p.shape, tokens.count, p.h_q);
    return {static_cast<int64_t>(items) * tiles, items};
  } else {
    return {tiles, 0};
  }
}

/// The requests of a thread.
struct Run {
  int32_t first, last;  // exclusive
};

__device__ inline Run run_of(PlanScheduleParams const& p, int thread) {
  int32_t const length = (p.batch + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  int64_t const first = static_cast<int64_t>(thread) * length;
  int64_t const last = first + length;
  return {static_cast<int32_t>(first < p.batch ? first : p.batch), static_cast<int32_t>(last < p.batch ? last : p.batch)};
}

/// Sum over the lanes up to this one.
template <class T>
__device__ inline T scan_warp(T sum, int lane) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    T const left = __shfl_up_sync(device::kFullWarp, sum, step);
    if (lane >= step) sum += left;
  }
  return sum;
}

/// Exclusive scan of the runs' tiles into smem.tiles_before, of their items where these differ, and the longest item. Ends
/// with a barrier.
template <bool kRagged>
__device__ inline void scan_tiles(Smem<kRagged>& smem, PlanScheduleParams const& p) {
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  Run const run = run_of(p, thread);
  Amount mine{0, 0};
  int32_t longest = 0;
  for (int32_t r = run.first; r < run.last; ++r) {
    Amount const amount = amount_of<kRagged>(p, r);
    mine.tiles += amount.tiles;
    if constexpr (kRagged) {
      mine.items += amount.items;
      if (amount.items > 0) longest = max(longest, static_cast<int32_t>(amount.tiles / amount.items));
    } else {
      longest = max(longest, static_cast<int32_t>(amount.tiles));
    }
  }
  longest = __reduce_max_sync(device::kFullWarp, longest);
  if (lane == 0) smem.warp_longest[warp] = longest;
  int64_t const sum = scan_warp(mine.tiles, lane);  // inclusive, of the warp
  if (lane == 31) smem.warp_tiles[warp] = sum;
  int32_t items = 0;
  if constexpr (kRagged) {
    items = scan_warp(mine.items, lane);
    if (lane == 31) smem.warp_items[warp] = items;
  }
  __syncthreads();
  int64_t before = 0;
  for (int w = 0; w < warp; ++w) before += smem.warp_tiles[w];
  smem.tiles_before[thread] = before + sum - mine.tiles;
  if (thread == static_cast<int>(blockDim.x) - 1) smem.tiles_before[thread + 1] = before + sum;
  if constexpr (kRagged) {
    int32_t items_before = 0;
    for (int w = 0; w < warp; ++w) items_before += smem.warp_items[w];
    smem.items_before[thread] = items_before + items - mine.items;
    if (thread == static_cast<int>(blockDim.x) - 1) smem.items_before[thread + 1] = items_before + items;
  }
  __syncthreads();
}

/// Position of request r on the line of costs, with `before` in front of it.
template <bool kRagged>
__device__ inline int64_t request_start(PlanScheduleParams const& p, int32_t r, Amount const& before) {
  if constexpr (kRagged) return static_cast<int64_t>(p.shape.part_cost) * before.items + p.shape.tile_cost * before.tiles;
  else return p.num_row_tiles * (static_cast<int64_t>(p.shape.part_cost) * r + p.shape.tile_cost * before.tiles);
}

/// What lies before a thread's run, or with blockDim.x all there is.
template <bool kRagged>
__device__ inline Amount before_run(Smem<kRagged> const& smem, int thread) {
  if constexpr (kRagged) return {smem.tiles_before[thread], smem.items_before[thread]};
  else return {smem.tiles_before[thread], 0};
}

/// What the splitting follows from; every thread computes the same.
template <bool kRagged>
__device__ inline core::PlanTotals sum_up(Smem<kRagged> const& smem, PlanScheduleParams const& p) {
  int32_t longest = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) longest = max(longest, smem.warp_longest[w]);
  Amount const all = before_run(smem, static_cast<int>(blockDim.x));
  int64_t const item_cost = p.shape.part_cost + static_cast<int64_t>(p.shape.tile_cost) * longest;
  int64_t const cost = request_start<kRagged>(p, p.batch, all);
  if constexpr (kRagged) return {cost, all.tiles, all.items, item_cost};
  else return {cost, p.num_row_tiles * all.tiles, p.batch * p.num_row_tiles, item_cost};
}

/// First index in values[0 .. count) that is >= `bound`; `count` if there is none. Values do not fall.
__device__ inline int lower_bound(int64_t const* values, int count, int64_t bound) {
  int low = 0, high = count;
  while (low < high) {
    int const middle = (low + high) / 2;
    if (values[middle] >= bound) high = middle;
    else low = middle + 1;
  }
  return low;
}

/// The request that holds a position, and where it starts.
struct Place {
  int32_t request;
  int64_t start;
  int64_t cost;  // of one of its items
};

template <bool kRagged>
__device__ inline Place find_request(Smem<kRagged> const& smem, PlanScheduleParams const& p, int64_t position) {
  int low = 0, high = static_cast<int>(blockDim.x);  // the last run that starts at or before `position` and holds requests
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    Run const run = run_of(p, middle);
    bool const starts_later = run.first >= p.batch || request_start<kRagged>(p, run.first, before_run(smem, middle)) > position;
    if (starts_later) high = middle;
    else low = middle;
  }
  Run const run = run_of(p, low);
  Amount before = before_run(smem, low);
  for (int32_t r = run.first;; ++r) {
    Amount const amount = amount_of<kRagged>(p, r);
    Amount const behind{before.tiles + amount.tiles, before.items + amount.items};
    // A ragged request without items ends where it starts, and so is passed over.
    if (r + 1 >= run.last || request_start<kRagged>(p, r + 1, behind) > position)
      return {r, request_start<kRagged>(p, r, before), core::item_cost(p.shape, p.kv_len[r])};
    before = behind;
  }
}

/// The place of item `number` in the order of (request, row tile); ragged.
__device__ inline core::WorkerBegin find_item(Smem<true> const& smem, PlanScheduleParams const& p, int32_t number) {
  int low = 0, high = static_cast<int>(blockDim.x);  // the last run with at most `number` items before it
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    if (run_of(p, middle).first >= p.batch || smem.items_before[middle] > number) high = middle;
    else low = middle;
  }
  int32_t before = smem.items_before[low];
  for (int32_t r = run_of(p, low).first;; ++r) {
    int32_t const items = amount_of<true>(p, r).items;
    if (before + items > number) return {r, number - before, 0, 0, 0};
    before += items;
  }
}

/// Where worker w begins, and the item whose second part it runs (num_splits 0: none).
struct Placed {
  core::WorkerBegin begin;
  core::SplitItem split_item;
};

template <bool kRagged>
__device__ inline Placed place_worker(Smem<kRagged> const& smem, PlanScheduleParams const& p, int32_t workers, int32_t w) {
  int64_t const position = smem.cuts[w];
  Place const place = find_request(smem, p, position);
  int64_t const into = position - place.start;
  auto const row_tile = static_cast<int32_t>(!kRagged && p.num_row_tiles == 1 ? 0 : into / place.cost);
  int64_t const item_start = place.start + row_tile * place.cost;
  int32_t const tile = core::locate(p.shape, position - item_start);
  if (tile == 0) return {{place.request, row_tile, 0, 0, 0}, {}};
  // Split 0 belongs to the last worker that starts before the item's second tile.
  int32_t const first_worker = lower_bound(smem.cuts, workers, item_start + p.shape.part_cost + p.shape.tile_cost) - 1;
  int32_t const num_splits = lower_bound(smem.cuts, workers, item_start + place.cost) - first_worker;
  Placed placed{{place.request, row_tile, tile, static_cast<int16_t>(w - first_worker), static_cast<int16_t>(num_splits)}, {}};
  if (placed.begin.split == 1) placed.split_item = {place.request, row_tile, first_worker, num_splits};
  return placed;
}

__device__ inline core::ScheduleView view_of(PlanScheduleParams const& p) {
  char* const base = static_cast<char*>(p.schedule);
  return {reinterpret_cast<core::ScheduleHeader*>(base), reinterpret_cast<core::WorkerBegin*>(base + core::kScheduleBeginsOffset),
          reinterpret_cast<core::SplitItem*>(base + core::schedule_splits_offset(p.shape.max_workers))};
}

/// Where item `number` begins.
template <bool kRagged>
__device__ inline core::WorkerBegin item_begin(Smem<kRagged> const& smem, PlanScheduleParams const& p, int32_t number) {
  if constexpr (kRagged) return find_item(smem, p, number);
  else return {number / p.num_row_tiles, number % p.num_row_tiles, 0, 0, 0};
}

/// Workers and how they were found; the same in every thread.
struct Workers {
  int32_t count;
  int32_t per_item;  // 0: the line is cut; -n: n whole items a worker
};

/// Where worker w begins when every item has as many.
template <bool kRagged>
__device__ inline Placed share_item(Smem<kRagged> const& smem, PlanScheduleParams const& p, Workers workers, int32_t w) {
  int32_t const item = w / workers.per_item, split = w % workers.per_item;
  core::WorkerBegin begin = item_begin(smem, p, item);
  core::SplitItem split_item{};
  if (split > 0) {
    int32_t const tiles = core::num_token_tiles(p.shape, p.kv_len[begin.request]), parts = core::num_even_parts(tiles, workers.per_item);
    if (split < parts) {
      if (split == 1) split_item = {begin.request, begin.row_tile, w - 1, parts};
      begin.tile = core::even_part_begin(tiles, parts, split);
      begin.split = static_cast<int16_t>(split), begin.num_splits = static_cast<int16_t>(parts);
    } else if ((item + 1) * workers.per_item < workers.count) {
      begin = item_begin(smem, p, item + 1);
    } else {
      begin = core::WorkerBegin{p.batch, 0, 0, 0, 0};
    }
  }
  return {begin, split_item};
}

/// Where a thread's worker begins. The first of a ragged batch begins at request 0 and is there even if no request has items.
template <bool kRagged>
__device__ inline Placed place(Smem<kRagged> const& smem, PlanScheduleParams const& p, Workers workers) {
  auto const w = static_cast<int32_t>(threadIdx.x);
  if (w >= workers.count) return {{kRagged && w == 0 ? 0 : p.batch, 0, 0, 0, 0}, {}};
  Placed placed{};
  if (workers.per_item < 0) placed.begin = item_begin(smem, p, w * -workers.per_item);
  else if (workers.per_item > 0) placed = share_item(smem, p, workers, w);
  else placed = place_worker(smem, p, workers.count, w);
  if (kRagged && w == 0) placed.begin = {0, 0, 0, 0, 0};
  return placed;
}

/// Places all workers and lists the split items in the order of their workers; every byte of the schedule is written.
template <bool kRagged>
__device__ inline void write_schedule(Smem<kRagged>& smem, PlanScheduleParams const& p, Workers workers) {
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  core::ScheduleView const view = view_of(p);
  Placed const placed = place(smem, p, workers);
  if (thread < p.shape.max_workers) view.begins[thread] = placed.begin;
  bool const is_split = placed.split_item.num_splits > 0;
  unsigned const splits = __ballot_sync(device::kFullWarp, is_split);
  if (lane == 0) smem.warp_splits[warp] = __popc(splits);
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
    if (w < warp) before += smem.warp_splits[w];
    all += smem.warp_splits[w];
  }
  if (is_split) view.splits[before + __popc(splits & ((1u << lane) - 1))] = placed.split_item;
  if (thread >= all && thread < p.shape.max_workers) view.splits[thread] = {0, 0, 0, 0};
  if (thread == 0) {
    view.begins[p.shape.max_workers] = {p.batch, 0, 0, 0, 0};
    int32_t const q_tokens = kRagged ? 0 : p.q_tokens, count = kRagged && p.batch > 0 ? max(workers.count, 1) : workers.count;
    uint32_t const magic = core::schedule_magic(p.shape.max_workers, p.shape.kv_heads);
    *view.header = {magic,
                    p.batch,
                    q_tokens,
                    p.num_row_tiles,
                    count,
                    all,
                    static_cast<int16_t>(p.shape.tile_tokens),
                    static_cast<int16_t>(workers.per_item),
                    p.shape.tile_rows};
  }
}

template <bool kRagged>
__global__ void __launch_bounds__(kMaxThreads, 1) plan_schedule_kernel(PlanScheduleParams const __grid_constant__ p) {
  __shared__ Smem<kRagged> smem;
  cudaGridDependencySynchronize();  // lengths may come from the kernel before, and the last step may still read the schedule
  cudaTriggerProgrammaticLaunchCompletion();
  scan_tiles(smem, p);
  core::PlanTotals const totals = sum_up(smem, p);
  int32_t const per_item = core::workers_per_item(p.shape, totals);
  Workers const workers{core::num_workers(p.shape, totals, per_item), per_item};
  auto const thread = static_cast<int32_t>(threadIdx.x);
  if (per_item == 0 && thread < workers.count) smem.cuts[thread] = core::cut_position(p.shape, totals, workers.count, thread);
  __syncthreads();
  write_schedule(smem, p, workers);
}

}  // namespace flashmla::cuda::plan_schedule
