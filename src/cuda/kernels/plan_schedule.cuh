// The planner on the device: one block turns the lengths of a step into its schedule.
//
// Math: core/planner.hpp; the result equals core::make_schedule bit for bit. With T(r) the token tiles of requests before
//   r, request r starts on the line of costs at row_tiles * (part_cost * r + tile_cost * T(r)), so a scan over tiles is all.
// Roles: thread t sums the tiles of `run` consecutive requests; thread w < workers places worker w.
// Timeline: lengths -> scan of tiles, longest request -> cuts -> (worker) search its run, its request, its row tile, its
//   token tile -> split items in the order of their workers. No cuts and no search when every item is one worker's.
// Shared memory: 13 KB: int64 tiles before each run [1025], cuts [kMaxWorkers + 1], sums and counts a warp.
// Barriers: __syncthreads between the steps.
// Registers: no constraint; one block.
// Limits: max_workers <= kMaxWorkers; any batch.
#pragma once

#include <cstdint>

#include "core/planner.hpp"
#include "core/schedule.hpp"
#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/plan_schedule.hpp"

namespace flashmla::cuda::plan_schedule {

inline constexpr int kMaxThreads = 1024;

struct Smem {
  int64_t tiles_before[kMaxThreads + 1];  // token tiles of one row tile before each thread's run; last: all
  int64_t cuts[kMaxWorkers + 1];          // [workers + 1]
  int64_t warp_tiles[kMaxThreads / 32];
  int32_t warp_splits[kMaxThreads / 32];   // split items that begin in each warp's workers
  int32_t warp_longest[kMaxThreads / 32];  // the most tiles of a request in each warp's runs
};

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

/// Exclusive scan of the runs' tiles into smem.tiles_before, and their longest requests. Ends with a barrier.
__device__ inline void scan_tiles(Smem& smem, PlanScheduleParams const& p) {
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  Run const run = run_of(p, thread);
  int64_t mine = 0;
  int32_t longest = 0;
  for (int32_t r = run.first; r < run.last; ++r) {
    int32_t const tiles = core::num_token_tiles(p.shape, p.kv_len[r]);
    mine += tiles;
    longest = max(longest, tiles);
  }
  longest = __reduce_max_sync(device::kFullWarp, longest);
  if (lane == 0) smem.warp_longest[warp] = longest;
  int64_t sum = mine;  // inclusive, of the warp
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    int64_t const left = __shfl_up_sync(device::kFullWarp, sum, step);
    if (lane >= step) sum += left;
  }
  if (lane == 31) smem.warp_tiles[warp] = sum;
  __syncthreads();
  int64_t before = 0;
  for (int w = 0; w < warp; ++w) before += smem.warp_tiles[w];
  smem.tiles_before[thread] = before + sum - mine;
  if (thread == static_cast<int>(blockDim.x) - 1) smem.tiles_before[thread + 1] = before + sum;
  __syncthreads();
}

/// Position of request r on the line of costs, with `tiles` token tiles before it.
__device__ inline int64_t request_start(PlanScheduleParams const& p, int32_t r, int64_t tiles) {
  return p.num_row_tiles * (static_cast<int64_t>(p.shape.part_cost) * r + p.shape.tile_cost * tiles);
}

/// What the splitting follows from; every thread computes the same.
__device__ inline core::PlanTotals sum_up(Smem const& smem, PlanScheduleParams const& p) {
  int32_t longest = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) longest = max(longest, smem.warp_longest[w]);
  int64_t const tiles = smem.tiles_before[blockDim.x];
  int64_t const item_cost = p.shape.part_cost + static_cast<int64_t>(p.shape.tile_cost) * longest;
  return {request_start(p, p.batch, tiles), p.num_row_tiles * tiles, p.batch * p.num_row_tiles, item_cost};
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

__device__ inline Place find_request(Smem const& smem, PlanScheduleParams const& p, int64_t position) {
  int low = 0, high = static_cast<int>(blockDim.x);  // the last run that starts at or before `position` and holds requests
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    Run const run = run_of(p, middle);
    bool const starts_later = run.first >= p.batch || request_start(p, run.first, smem.tiles_before[middle]) > position;
    if (starts_later) high = middle;
    else low = middle;
  }
  Run const run = run_of(p, low);
  int64_t tiles = smem.tiles_before[low];
  for (int32_t r = run.first;; ++r) {
    int32_t const request_tiles = core::num_token_tiles(p.shape, p.kv_len[r]);
    if (r + 1 >= run.last || request_start(p, r + 1, tiles + request_tiles) > position)
      return {r, request_start(p, r, tiles), core::item_cost(p.shape, p.kv_len[r])};
    tiles += request_tiles;
  }
}

/// Where worker w begins, and the item whose second part it runs (num_splits 0: none).
struct Placed {
  core::WorkerBegin begin;
  core::SplitItem split_item;
};

__device__ inline Placed place_worker(Smem const& smem, PlanScheduleParams const& p, int32_t workers, int32_t w) {
  int64_t const position = smem.cuts[w];
  Place const place = find_request(smem, p, position);
  int64_t const into = position - place.start;
  auto const row_tile = static_cast<int32_t>(p.num_row_tiles == 1 ? 0 : into / place.cost);
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

/// Places all workers and lists the split items in the order of their workers; every byte of the schedule is written.
__device__ inline void write_schedule(Smem& smem, PlanScheduleParams const& p, int32_t workers, bool items_are_whole) {
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  core::ScheduleView const view = view_of(p);
  Placed placed{{p.batch, 0, 0, 0, 0}, {}};
  if (thread < workers && items_are_whole) placed.begin = {thread / p.num_row_tiles, thread % p.num_row_tiles, 0, 0, 0};
  else if (thread < workers) placed = place_worker(smem, p, workers, thread);
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
    *view.header = {core::kScheduleMagic, p.batch, p.q_tokens, p.num_row_tiles, workers, all, p.shape.tile_tokens, p.shape.tile_rows};
  }
}

__global__ void __launch_bounds__(kMaxThreads) plan_schedule_kernel(PlanScheduleParams const __grid_constant__ p) {
  __shared__ Smem smem;
  cudaGridDependencySynchronize();  // lengths may come from the kernel before, and the last step may still read the schedule
  cudaTriggerProgrammaticLaunchCompletion();
  scan_tiles(smem, p);
  core::PlanTotals const totals = sum_up(smem, p);
  bool const items_are_whole = core::keeps_items_whole(p.shape, totals);
  int32_t const workers = core::num_workers(p.shape, totals);
  auto const thread = static_cast<int32_t>(threadIdx.x);
  if (!items_are_whole && thread < workers) smem.cuts[thread] = core::cut_position(p.shape, totals, workers, thread);
  __syncthreads();
  write_schedule(smem, p, workers, items_are_whole);
}

}  // namespace flashmla::cuda::plan_schedule
