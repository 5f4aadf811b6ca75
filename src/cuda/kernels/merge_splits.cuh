// Merge of the items that several workers shared: the second kernel of a dense decode.
//
// Math: device/merge_row.cuh, over the N parts of an item (docs/architecture.md, split-KV). Reference: src/reference.
//
// Roles: 8 equal warps a CTA. A *unit* is (row, `4 * lanes * chunks` columns) of an item, worked on by `spread` lane
//   groups of 16 or 32 lanes; group g takes the splits g, g + spread, ...
// Timeline of a task: find the item -> issue all value loads -> row sum from all N lse -> weights -> (spread > 1: sum
//   over groups in shared memory) -> store.
// Shared memory: 4 KB, float [groups][4 * lanes] sums of the groups; 8 KB, each warp's own copy of its row's lse.
// Barriers: __syncwarp after the lse were written; __syncthreads around the sum over groups only.
// Registers: at most 64 (4 CTAs an SM); up to 9 independent 16-byte loads a thread in flight.
// Limits: any number of splits; what fits a single round is 9 * spread of them.
//
// Latency decides here, not bandwidth: the number of split items is known on the device only, so the grid is fixed and
// the width of a unit follows from how many there are: few rows -> 64 columns a CTA over all splits, so that every SM
// has work; many items of two splits (a large batch) -> one warp a row, without shared memory.
#pragma once

#include <cstdint>

#include "core/schedule.hpp"
#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/dense_decode.hpp"

namespace flashmla::cuda::merge_splits {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kCtasPerSm = 4;
inline constexpr int kColumns = 512;
inline constexpr int kLoads = 9;        // 16-byte loads in flight a thread; 16 groups of 9 cover 144 splits in one round
inline constexpr int kMaxSplits = 256;  // of an item

struct Smem {
  float sums[kThreads * 4];       // [groups, 4 * lanes]
  float lse[kWarps][kMaxSplits];  // log2 units
};

/// How the units of an item are cut; a function of its splits and of the launch, equal in all threads.
struct Cut {
  int lanes_log2;   // lanes of a group: 16 or 32
  int spread_log2;  // lane groups a unit: 1 .. 16
  int chunks_log2;  // float4 a lane and split: 1 or 4
};

/// One task: where the CTA works.
struct Task {
  core::SplitItem item;
  Cut cut;
  int rows;        // valid rows of the item
  int first_unit;  // of the CTA
};

/// One unit of a thread: its row and columns.
struct Unit {
  int group;      // of the unit: 0 .. spread - 1
  int row;        // in the tile
  int column;     // first of this lane
  bool is_valid;  // the last task of an item may hold fewer units
};

__device__ inline int rows_of(DenseDecodeParams const& p, core::SplitItem const& item) {
  int const tile_rows = kCtaRows * p.group;
  int const left = p.call.q_tokens * p.h_q - item.row_tile * tile_rows;
  return left < tile_rows ? left : tile_rows;
}

__device__ inline Cut choose_cut(int num_splits, int num_quad_units) {
  int const grid = static_cast<int>(gridDim.x);
  if (2 * num_quad_units <= grid) return {4, 4, 0};
  if (num_splits <= 2 && num_quad_units > kWarps * grid) return {5, 0, 2};
  int spread_log2 = 0;
  while (spread_log2 < 3 && ((kLoads << spread_log2) < num_splits || (num_quad_units << (spread_log2 + 1)) <= kWarps * grid)) ++spread_log2;
  return {5, spread_log2, 0};
}

__device__ inline int column_bits(Cut const& cut) { return 2 + cut.lanes_log2 + cut.chunks_log2; }       // log2 of a unit's columns
__device__ inline int units_a_row_log2(Cut const& cut) { return 9 - column_bits(cut); }                  // 512 columns a row
__device__ inline int units_a_cta_log2(Cut const& cut) { return 8 - cut.lanes_log2 - cut.spread_log2; }  // 256 threads a CTA

/// Units of 128 columns in the whole launch, an upper bound: what choose_cut weighs against the grid.
__device__ inline int count_quad_units(DenseDecodeParams const& p, int num_items) {
  int const rows = p.call.q_tokens * p.h_q;
  int const tile_rows = kCtaRows * p.group;
  return num_items * (rows < tile_rows ? rows : tile_rows) * (kColumns / 128);
}

/// Finds the task of that index. Every warp searches by itself, 32 items a step; false when there is none.
__device__ inline bool find_task(DenseDecodeParams const& p, core::SplitItem const* items, int num_items, int task_idx, Task& task) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const num_quad_units = count_quad_units(p, num_items);
  int before = 0;
  for (int base = 0; base < num_items; base += 32) {
    core::SplitItem item{};
    Cut cut{};
    int rows = 0, tasks = 0;
    if (base + lane < num_items) {
      item = items[base + lane];
      cut = choose_cut(item.num_splits, num_quad_units);
      rows = rows_of(p, item);
      bool const is_sound = item.first_worker >= 0 && item.num_splits > 0 && item.first_worker + item.num_splits <= p.max_workers &&
                            item.request < p.call.batch && rows > 0;
      int const cta_units = 1 << units_a_cta_log2(cut);
      tasks = is_sound ? ((rows << units_a_row_log2(cut)) + cta_units - 1) / cta_units : 0;
    }
    int last = tasks;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      int const left = __shfl_up_sync(device::kFullWarp, last, step);
      if (lane >= step) last += left;
    }
    unsigned const beyond = __ballot_sync(device::kFullWarp, before + last > task_idx);
    if (beyond != 0) {
      int const found = __ffs(static_cast<int>(beyond)) - 1;
      auto from = [&](int value) { return __shfl_sync(device::kFullWarp, value, found); };
      task.item = {from(item.request), from(item.row_tile), from(item.first_worker), from(item.num_splits)};
      task.cut = {from(cut.lanes_log2), from(cut.spread_log2), from(cut.chunks_log2)};
      task.rows = from(rows);
      task.first_unit = (task_idx - before - from(last - tasks)) << units_a_cta_log2(task.cut);
      return true;
    }
    before += __shfl_sync(device::kFullWarp, last, 31);
  }
  return false;
}

__device__ inline Unit find_unit(Task const& task) {
  int const thread = static_cast<int>(threadIdx.x);
  int const group = thread >> task.cut.lanes_log2;
  int const unit = task.first_unit + (group >> task.cut.spread_log2);
  int const row = unit >> units_a_row_log2(task.cut);
  int const column_unit = unit & ((1 << units_a_row_log2(task.cut)) - 1);
  int const lane = thread & ((1 << task.cut.lanes_log2) - 1);
  return {group & ((1 << task.cut.spread_log2) - 1), row, (column_unit << column_bits(task.cut)) + 4 * lane, row < task.rows};
}

/// Slot of split s of the item.
__device__ inline int64_t slot_of(core::SplitItem const& item, int s) { return core::partial_slot(item.first_worker + s, s); }

/// The row sum over all parts; each lane of the warp reads other splits and leaves them in `lses`. With 16-lane groups
/// both halves of a warp work on the same row, so the butterfly over 32 lanes is right for every cut.
__device__ inline device::RowSum sum_row(DenseDecodeParams const& p, core::SplitItem const& item, int row, float* lses) {
  int const tile_rows = kCtaRows * p.group;
  device::RowSum sum = device::empty_row_sum();
  __syncwarp();  // the warp has read the previous task's values
  for (int s = static_cast<int>(threadIdx.x) % 32; s < item.num_splits; s += 32) {
    float const lse = __ldcg(p.partial_lse + slot_of(item, s) * tile_rows + row);
    lses[s] = lse;
    sum = device::combine(sum, device::row_sum_of(lse));
  }
  __syncwarp();
  return device::combine_across_warp(sum);
}

__device__ inline int row_in_request(DenseDecodeParams const& p, Task const& task, int row) {
  return task.item.row_tile * kCtaRows * p.group + row;
}

/// Factor that normalises the weights: 1 / total, times the sink's.
__device__ inline float row_scale(DenseDecodeParams const& p, Task const& task, int row, device::RowSum const& sum) {
  if (device::is_empty(sum)) return 0.0f;
  if (p.call.sink == nullptr) return 1.0f / sum.total;
  return device::sink_factor(p.call.sink[row_in_request(p, task, row) % p.h_q], device::lse_log2_of(sum)) / sum.total;
}

template <class Out>
__device__ inline void store(DenseDecodeParams const& p, Task const& task, int token, int head, int column, float4 const& values) {
  core::RowStrides const& stride = p.call.out_stride;
  Out* const out = static_cast<Out*>(p.call.out) + task.item.request * stride.batch + token * stride.token + head * stride.head;  // [512]
  device::store_quad(out + column, values);
}

__device__ inline void store_lse(DenseDecodeParams const& p, Task const& task, int token, int head, device::RowSum const& sum) {
  core::RowStrides const& stride = p.call.lse_stride;
  float const lse = device::is_empty(sum) ? p.empty_lse : device::lse_log2_of(sum) * p.lse_factor;
  p.call.lse[task.item.request * stride.batch + token * stride.token + head * stride.head] = lse;
}

/// Sums over the groups of a unit in their fixed order; the first group returns the whole, the others 0.
__device__ inline float4 sum_groups(Smem& smem, Cut const& cut, float4 const& mine) {
  int const thread = static_cast<int>(threadIdx.x);
  float4* const sums = reinterpret_cast<float4*>(smem.sums);
  sums[thread] = mine;
  __syncthreads();
  float4 sum{};
  if (((thread >> cut.lanes_log2) & ((1 << cut.spread_log2) - 1)) == 0) {
    for (int g = 0; g < 1 << cut.spread_log2; ++g) device::accumulate(sum, sums[thread + (g << cut.lanes_log2)], 1.0f, true);
  }
  __syncthreads();  // the next task writes the same places
  return sum;
}

/// One task with kChunks float4 a lane and split, kSplits of them in flight.
template <class Out, int kChunks, int kSplits>
__device__ inline void merge_task(Smem& smem, DenseDecodeParams const& p, Task const& task) {
  Unit const unit = find_unit(task);
  int const tile_rows = kCtaRows * p.group;
  int const row = unit.is_valid ? unit.row : 0;  // idle groups repeat row 0, so that shuffles and barriers see whole warps
  int const num_splits = task.item.num_splits;
  int const spread = 1 << task.cut.spread_log2;
  float* const lses = smem.lse[threadIdx.x / 32];  // [num_splits]

  float4 acc[kChunks] = {};
  device::RowSum sum{};
  float scale = 0.0f;
#pragma unroll 1
  for (int first = unit.group; first - unit.group < num_splits; first += spread * kSplits) {
    float4 values[kSplits][kChunks] = {};
    int const left = (num_splits - first + spread - 1) >> task.cut.spread_log2;  // splits of this group; may be <= 0
    // Slots of one item lie two apart, except that its first part lies one slot further on.
    float const* from = p.partial_out + (int64_t{2} * (task.item.first_worker + first) * tile_rows + row) * kColumns + unit.column;
    int const step = 2 * spread * tile_rows * kColumns;
#pragma unroll
    for (int k = 0; k < kSplits; ++k) {
      float const* const here = k == 0 && first == 0 ? from + tile_rows * kColumns : from;
      if (k < left) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c) values[k][c] = __ldcg(reinterpret_cast<float4 const*>(here + c * 128));
      }
      from += step;
    }
    if (first == unit.group) {  // the first loads are under way: their latency hides this one's
      sum = sum_row(p, task.item, row, lses);
      scale = row_scale(p, task, row, sum);
    }
#pragma unroll
    for (int k = 0; k < kSplits; ++k) {
      float const lse = k < left ? lses[first + k * spread] : device::minus_infinity();
      float const weight = device::part_weight(sum, lse, scale);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) device::accumulate(acc[c], values[k][c], weight, lse != device::minus_infinity());
    }
  }
  if (spread > 1) acc[0] = sum_groups(smem, task.cut, acc[0]);
  if (!unit.is_valid || unit.group != 0) return;
  int const token = row_in_request(p, task, row) / p.h_q, head = row_in_request(p, task, row) % p.h_q;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) store<Out>(p, task, token, head, unit.column + c * 128, acc[c]);
  if (unit.column == 0 && p.call.lse != nullptr) store_lse(p, task, token, head, sum);
}

/// The schedule belongs to this call; the decode kernel records the fault when it does not.
__device__ inline bool matches(DenseDecodeParams const& p, core::ScheduleHeader const& header) {
  return header.magic == core::kScheduleMagic && header.batch == p.call.batch && header.q_tokens == p.call.q_tokens &&
         header.tile_rows == kCtaRows * p.group && header.num_split_items <= p.max_workers && p.max_workers <= kMaxSplits;
}

template <class Out>
__global__ void __launch_bounds__(kThreads, kCtasPerSm) merge_splits_kernel(DenseDecodeParams const __grid_constant__ p) {
  __shared__ Smem smem;
  cudaGridDependencySynchronize();            // the schedule and the partial results are of earlier kernels
  cudaTriggerProgrammaticLaunchCompletion();  // the next kernel's CTAs may be placed as ours leave
  auto const* const base = static_cast<char const*>(p.schedule);
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(base);
  if (!matches(p, header)) return;
  auto const* const items = reinterpret_cast<core::SplitItem const*>(base + core::schedule_splits_offset(p.max_workers));
  Task task;
  for (int t = static_cast<int>(blockIdx.x); find_task(p, items, header.num_split_items, t, task); t += static_cast<int>(gridDim.x)) {
    if (task.cut.chunks_log2 == 2) merge_task<Out, 4, 2>(smem, p, task);
    else merge_task<Out, 1, kLoads>(smem, p, task);
  }
}

}  // namespace flashmla::cuda::merge_splits
