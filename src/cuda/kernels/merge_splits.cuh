// Merge of the items that three or more workers shared: the second kernel of a dense decode.
//
// Math. device/merge_row.cuh, over the parts of an item. Items of two parts have merged themselves (dense_decode_kernel).
//
// Roles. Items of many parts: a task is one row and kColumns columns; of the CTA's 256 threads, kColumns / 4 lanes span
//   the columns (16 bytes a load) and `kGroups` groups of lanes take the splits g, g + kGroups, ... Items of few parts, of
//   which a batch may have many: a task is a row, a warp each.
// Timeline: the list of items with three or more parts, a thread an item; then a task: all values of up to kLoads splits
//   a thread in flight, and every lse of the row -> weights, each warp for itself -> own sum -> sum over groups -> store.
// Shared memory. 4 KB of group sums, 8 x 1 KB of weights (one copy a warp), 4 KB of items.
// Barriers. __syncwarp between writing and reading a warp's weights; __syncthreads around the sum over groups.
// Registers. At most 128, so that two CTAs fit an SM.
// Limits. At most 160 parts an item: a worker has one, and Hopper has at most 144 multiprocessors.
//
// Latency decides here, not bandwidth. The number of split items is known on the device only; the launcher picks columns
// and grid from their upper bound, and CTAs stride over tasks.
#pragma once

#include <cstdint>

#include "core/schedule.hpp"
#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/dense_decode.hpp"

namespace flashmla::cuda::merge_splits {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kRowColumns = 512;
inline constexpr int kLoads = 8;        // 16-byte loads in flight a thread: 16 groups of 8 cover 128 splits
inline constexpr int kMaxSplits = 160;  // of an item: as many as workers
inline constexpr int kFewSplits = 12;   // up to so many a warp merges a row by itself
inline constexpr int kFewLoads = 4;     // of them in flight

struct Smem {
  float4 sums[kThreads];
  float weights[kWarps][kMaxSplits];
  core::SplitItem items[kThreads];  // of many parts from the front, of few (but three or more) from the back
  int warp_many[kWarps], warp_few[kWarps];
};

/// How many items are merged here.
struct ItemCounts {
  int many, few;
};

/// Where a task works; item_rows is the most rows that an item has.
struct Task {
  core::SplitItem item;
  int row;     // in the tile
  int column;  // of this thread's lane
};

/// Slot of an item's part, counted from the slots of its first worker.
__device__ __forceinline__ int slot_of(int split) { return 2 * split + (split == 0 ? 1 : 0); }

/// First cell [slot row] of the task's row: slot 2 * first_worker.
__device__ __forceinline__ int64_t first_cell(DenseDecodeParams const& params, Task const& task) {
  return 2 * static_cast<int64_t>(task.item.first_worker) * kCtaRows * params.group + task.row;
}

/// The row's weights into the warp's copy; returns log2 of the sum of all parts, -inf when every part is empty.
__device__ __forceinline__ float compute_weights(float* weights, float (&lse)[kMaxSplits / 32], int num_splits) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  float max = device::minus_infinity(), sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kMaxSplits / 32; ++i) {
    if (lane + 32 * i >= num_splits) lse[i] = device::minus_infinity();
    max = fmaxf(max, lse[i]);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) max = fmaxf(max, __shfl_xor_sync(device::kFullWarp, max, step));
  float const reference = max == device::minus_infinity() ? 0.0F : max;
#pragma unroll
  for (int i = 0; i < kMaxSplits / 32; ++i) sum += lse[i] = exp2f(lse[i] - reference);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(device::kFullWarp, sum, step);
  float const inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
  __syncwarp();  // the task before has been read
#pragma unroll
  for (int i = 0; i < kMaxSplits / 32; ++i)
    if (lane + 32 * i < num_splits) weights[lane + 32 * i] = lse[i] * inverse;
  __syncwarp();
  return max + log2f(sum);
}

__device__ inline void store_columns(DenseDecodeParams const& params, int64_t offset, float4 const& value) {
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_FP32) device::store_quad(static_cast<float*>(out) + offset, value);
  else if (params.out_dtype == FLASHMLA_BF16) device::store_quad(static_cast<__nv_bfloat16*>(out) + offset, value);
  else device::store_quad(static_cast<__half*>(out) + offset, value);
}

/// Sink, out and lse of a merged row.
__device__ inline void write_merged(DenseDecodeParams const& params, Task const& task, float4 value, float lse_log2) {
  int const index = task.item.row_tile * kCtaRows * params.group + task.row, token = index / params.h_q, head = index - token * params.h_q;
  bool const is_empty = lse_log2 == device::minus_infinity();
  if (params.call.sink != nullptr && !is_empty) {
    float const factor = device::sink_factor(params.call.sink[head], lse_log2);
    value = {value.x * factor, value.y * factor, value.z * factor, value.w * factor};
  }
  core::RowStrides const &out = params.call.out_stride, &lse = params.call.lse_stride;
  store_columns(params, task.item.request * out.batch + token * out.token + head * out.head + task.column, value);
  if (task.column == 0 && params.call.lse != nullptr)
    params.call.lse[task.item.request * lse.batch + token * lse.token + head * lse.head] =
        is_empty ? params.empty_lse : lse_log2 * params.lse_factor;
}

/// The loads of a task: this thread's first values, and its warp's lse of the row. `limit`: parts that may be read.
template <int kColumns>
struct RowLoads {
  static constexpr int kLanes = kColumns / 4, kGroups = kThreads / kLanes;
  float4 values[kLoads];
  float lse[kMaxSplits / 32];

  __device__ __forceinline__ RowLoads(DenseDecodeParams const& params, int64_t row, int column, int limit) {
    int64_t const slot_rows = kCtaRows * params.group;
    int const group = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      int const split = lane + 32 * i;
      lse[i] = split < limit ? __ldcg(params.partial_lse + row + slot_of(split) * slot_rows) : device::minus_infinity();
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      int const split = group + i * kGroups;
      if (split < limit)
        values[i] = __ldcg(reinterpret_cast<float4 const*>(params.partial_out + (row + slot_of(split) * slot_rows) * kRowColumns + column));
    }
  }
};

template <int kColumns>
__device__ __forceinline__ void merge_row(Smem& s, DenseDecodeParams const& params, Task const& task, RowLoads<kColumns>& loads) {
  using Loads = RowLoads<kColumns>;
  int const group = static_cast<int>(threadIdx.x) / Loads::kLanes, num_splits = task.item.num_splits;
  float* const weights = s.weights[threadIdx.x / 32];
  float const lse_log2 = compute_weights(weights, loads.lse, num_splits);
  float4 sum{0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    int const split = group + i * Loads::kGroups;
    if (split < num_splits) device::accumulate(sum, loads.values[i], weights[split], weights[split] > 0.0F);
  }
  int64_t const slot_elems = static_cast<int64_t>(kCtaRows) * params.group * kRowColumns;
  float const* const values = params.partial_out + first_cell(params, task) * kRowColumns + task.column;
#pragma unroll 4
  for (int split = group + kLoads * Loads::kGroups; split < num_splits; split += Loads::kGroups)
    device::accumulate(sum, __ldcg(reinterpret_cast<float4 const*>(values + slot_of(split) * slot_elems)), weights[split],
                       weights[split] > 0.0F);
  s.sums[threadIdx.x] = sum;
  __syncthreads();
  if (group == 0) {
#pragma unroll
    for (int g = 1; g < Loads::kGroups; ++g) {
      float4 const more = s.sums[threadIdx.x + g * Loads::kLanes];
      sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
    }
    write_merged(params, task, sum, lse_log2);
  }
  __syncthreads();
}

/// One row by one warp, lane l with the columns 4 l + 128 c; a few splits, kFewLoads at a time in flight.
__device__ __forceinline__ void merge_row_by_warp(DenseDecodeParams const& params, core::SplitItem const& item, int row) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int64_t const slot_rows = kCtaRows * params.group;
  int64_t const cell = 2 * static_cast<int64_t>(item.first_worker) * slot_rows + row;
  float weights[kFewSplits], max = device::minus_infinity(), sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kFewSplits; ++i) {
    weights[i] = i < item.num_splits ? __ldcg(params.partial_lse + cell + slot_of(i) * slot_rows) : device::minus_infinity();
    max = fmaxf(max, weights[i]);
  }
  float4 columns[4] = {};
#pragma unroll
  for (int from = 0; from < kFewSplits; from += kFewLoads) {
    float4 values[kFewLoads][4];
#pragma unroll
    for (int i = 0; i < kFewLoads; ++i)
#pragma unroll
      for (int c = 0; c < 4; ++c)
        if (from + i < item.num_splits)
          values[i][c] = __ldcg(reinterpret_cast<float4 const*>(params.partial_out + (cell + slot_of(from + i) * slot_rows) * kRowColumns +
                                                                4 * lane + 128 * c));
#pragma unroll
    for (int i = 0; i < kFewLoads; ++i) {
      float const weight = weights[from + i] == device::minus_infinity() ? 0.0F : exp2f(weights[from + i] - max);
      sum += weight;
#pragma unroll
      for (int c = 0; c < 4; ++c) device::accumulate(columns[c], values[i][c], weight, weight > 0.0F);
    }
  }
  float const inverse = sum > 0.0F ? 1.0F / sum : 0.0F, lse_log2 = sum > 0.0F ? max + log2f(sum) : device::minus_infinity();
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float4 const value{columns[c].x * inverse, columns[c].y * inverse, columns[c].z * inverse, columns[c].w * inverse};
    write_merged(params, Task{item, row, 4 * lane + 128 * c}, value, lse_log2);
  }
}

/// Whether the schedule belongs to this call. The decode kernel records one that does not; here it is only not followed.
__device__ inline bool schedule_fits(DenseDecodeParams const& params, core::ScheduleHeader const& header) {
  return header.magic == core::kScheduleMagic && header.batch == params.call.batch && header.q_tokens == params.call.q_tokens;
}

/// The first split item, of no parts where there is none.
__device__ inline core::SplitItem only_item(DenseDecodeParams const& params) {
  auto const* const base = static_cast<char const*>(params.schedule);
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(base);
  core::SplitItem const item = *reinterpret_cast<core::SplitItem const*>(base + core::schedule_splits_offset(params.max_workers));
  return schedule_fits(params, header) && header.num_split_items == 1 ? item : core::SplitItem{};
}

/// Lists the items that are merged here, in their order. A thread looks at one item.
__device__ inline ItemCounts list_items(Smem& s, DenseDecodeParams const& params, int item_rows) {
  int const thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  auto const* const base = static_cast<char const*>(params.schedule);
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(base);
  auto const* const items = reinterpret_cast<core::SplitItem const*>(base + core::schedule_splits_offset(params.max_workers));
  core::SplitItem const item = thread < params.max_workers ? items[thread] : core::SplitItem{};
  int const few_limit = header.num_split_items * item_rows > static_cast<int>(gridDim.x) ? kFewSplits : 0;
  bool const is_listed = schedule_fits(params, header) && thread < header.num_split_items && item.num_splits > 2,
             is_few = item.num_splits <= few_limit;
  unsigned const many = __ballot_sync(device::kFullWarp, is_listed && !is_few), few = __ballot_sync(device::kFullWarp, is_listed && is_few);
  if (thread % 32 == 0) s.warp_many[warp] = __popc(many), s.warp_few[warp] = __popc(few);
  __syncthreads();
  ItemCounts before{0, 0}, total{0, 0};
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i == warp) before = total;
    total.many += s.warp_many[i], total.few += s.warp_few[i];
  }
  unsigned const lanes_before = (1U << (thread % 32)) - 1U;
  if (is_listed && !is_few) s.items[before.many + __popc(many & lanes_before)] = item;
  if (is_listed && is_few) s.items[kThreads - 1 - before.few - __popc(few & lanes_before)] = item;
  __syncthreads();
  return total;
}

__device__ inline bool row_exists(DenseDecodeParams const& params, core::SplitItem const& item, int row) {
  return item.row_tile * kCtaRows * params.group + row < params.call.q_tokens * params.h_q;
}

/// `item_rows`: the most valid rows that an item has.
template <int kColumns>
__global__ void __launch_bounds__(kThreads, 2) merge_splits_kernel(DenseDecodeParams const __grid_constant__ params, int item_rows) {
  __shared__ Smem s;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  constexpr int kChunks = kRowColumns / kColumns;
  constexpr int kLaneColumns = 4, kLanes = kColumns / kLaneColumns;
  int const column = static_cast<int>(threadIdx.x) % kLanes * kLaneColumns;
  if (params.call.batch == 1 && params.num_row_tiles == 1) {
    // One item, which needs no list. All of its tasks are resident at once.
    int const index = static_cast<int>(blockIdx.x);
    Task const task{only_item(params), index / kChunks, index % kChunks * kColumns + column};
    if (task.item.num_splits <= 2) return;
    RowLoads<kColumns> loads(params, first_cell(params, task), task.column, task.item.num_splits);
    merge_row<kColumns>(s, params, task, loads);
    return;
  }
  ItemCounts const counts = list_items(s, params, item_rows);
  int const num_tasks = counts.many * item_rows * kChunks;
  for (int index = static_cast<int>(blockIdx.x); index < num_tasks; index += static_cast<int>(gridDim.x)) {
    int const chunk = index % kChunks, row = index / kChunks % item_rows;
    Task const task{s.items[index / kChunks / item_rows], row, chunk * kColumns + column};
    if (!row_exists(params, task.item, row)) continue;
    RowLoads<kColumns> loads(params, first_cell(params, task), task.column, task.item.num_splits);
    merge_row<kColumns>(s, params, task, loads);
  }
  int const num_rows = counts.few * item_rows;
  for (int index = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32); index < num_rows;
       index += static_cast<int>(gridDim.x) * kWarps) {
    core::SplitItem const item = s.items[kThreads - 1 - index / item_rows];
    if (row_exists(params, item, index % item_rows)) merge_row_by_warp(params, item, index % item_rows);
  }
}

}  // namespace flashmla::cuda::merge_splits
