// Items that several CTAs share: each leaves a partial result, and when all are there, each merges a slice of the rows.
//
// Math. With partial values h_s (FP16), their scales c_s and l_s (log2 of the sum of exponentials, -inf when empty):
//     m = max l_s,  w_s = 2^(l_s - m) / sum 2^(l_s - m),  out = sum (w_s c_s) h_s,  lse_log2 = m + log2 sum 2^(l_s - m).
//
// Slices. A row's 512 values lie in 16 chunks of 64 bytes. Of an item's C = 16 * rows chunks, part p of n merges chunks
//   C p / n .. C (p + 1) / n, so that every CTA has the same to do however many rows and parts there are.
//
// Order. A counter an item: parts that have arrived, parts that are done with it, parts that would not wait. A CTA stores its
//   partial result and arrives (release); once it has no tiles left, it waits (acquire) until all have arrived. Nothing
//   guarantees that the GPU runs all CTAs of a grid at once, so nobody waits longer than kPatience: who gives up says so, and
//   the last to arrive then merges the whole item. Who is done last leaves 0 for the next run. The result is the same bits
//   whoever merges.
//
// Shared memory. KV's, which nothing needs any more: all parts of the slice, then their weights.
#pragma once

#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/dense_decode_part.cuh"
#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/sync.cuh"
#include "cuda/tile/fragment.hpp"

namespace flashmla::cuda::dense_decode {

inline constexpr int kOutputThreads = 256;  // that hold O, 64 rows x 512 columns; the CTA's first
inline constexpr int kChunkBytes = 64;
inline constexpr int kRowChunks = 16;          // chunk 8 * h + i of a row: columns 256 h + 32 i .. + 31
inline constexpr int kChunkWords = 16;         // word 4 q + k of a chunk: columns 8 k + 2 q, 8 k + 2 q + 1
inline constexpr int64_t kPatience = 1 << 18;  // cycles, about 150 us
inline constexpr int kMaxParts = 256;          // of an item
inline constexpr int kOutputBarrier = 1;       // named barrier of the output threads

/// Where the merge works.
struct MergeMemory {
  uint4 values[(kCtaRows * kRowChunks + kMaxParts) * kChunkBytes / 16];  // [part][chunk of the slice]
  float2 weights[kCtaRows + 2 * kMaxParts];                              // [row of the slice][part]: left and right half
  float lse[kCtaRows + 2 * kMaxParts];
  float2 sums[kOutputThreads];
};

/// A thread that holds O.
struct OutputThread {
  int32_t warpgroup;  // 0: columns 0 .. 255; 1: the rest
  int32_t thread;     // in the warpgroup
  int32_t lane;
};

/// An item that the CTA has a part of.
struct SharedItem {
  int32_t request;
  int32_t row_begin;
  int32_t split;
  int32_t num_splits;
};

// Fields of an item's counter.
inline constexpr uint32_t kArrived = 1U, kDone = 1U << 10, kImpatient = 1U << 20, kCountMask = (1U << 10) - 1;

__device__ __forceinline__ int32_t first_worker_of(SharedItem const& item) { return static_cast<int32_t>(blockIdx.y) - item.split; }

__device__ __forceinline__ uint32_t& item_counter(DenseDecodeParams const& params, SharedItem const& item) {
  return static_cast<core::WorkspaceHeader*>(params.workspace)->counters[first_worker_of(item) * params.start.group + blockIdx.x];
}

/// First row (of this CTA's 64) in the slot of an item's part.
__device__ __forceinline__ int64_t slot_row(DenseDecodeParams const& params, int32_t first_worker, int32_t split) {
  return (static_cast<int64_t>(core::partial_slot(first_worker + split, split)) * params.start.group + blockIdx.x) * kCtaRows;
}

/// Half h of the thread's rows, as FP16 to memory; `inverse` is 1 / l, 0 where the row saw no key.
__device__ __forceinline__ void write_partial_row(float const (&o)[128], int half, float lse_log2, float inverse, int64_t row,
                                                  DenseDecodeParams const& params, OutputThread const& me) {
  float largest = 0.0F;
#pragma unroll
  for (int block = 0; block < 32; ++block)
    largest = fmaxf(largest, fmaxf(fabsf(o[accumulator_index(block, half, 0)]), fabsf(o[accumulator_index(block, half, 1)])));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
  // 2^14 <= largest * up < 2^15, and down = 1 / up, both exact; tiny rows keep what up = 2^126 leaves of them.
  uint32_t const exponent = max(__float_as_uint(largest) >> 23, 15U);
  float const up = __uint_as_float((268U - exponent) << 23), down = __uint_as_float((exponent - 14U) << 23);
  uint4* const values = reinterpret_cast<uint4*>(static_cast<char*>(params.partial_values) + row * static_cast<int64_t>(kPartialRowBytes)) +
                        me.warpgroup * 32 + me.lane % 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    uint32_t word[4];
#pragma unroll
    for (int k = 0; k < 4; ++k)
      word[k] = pack<__half>(o[accumulator_index(4 * i + k, half, 0)] * up, o[accumulator_index(4 * i + k, half, 1)] * up);
    __stcg(values + 4 * i, make_uint4(word[0], word[1], word[2], word[3]));
  }
  if (me.lane % 4 != 0) return;
  PartialRow& target = params.partial_rows[row];
  if (me.warpgroup == 0) __stcg(&target.lse_log2, lse_log2);
  __stcg(&target.scale[me.warpgroup], down * inverse);
}

/// After every store of the part: makes them visible to the GPU, and says so. Returns the counter before. One thread.
__device__ __forceinline__ uint32_t arrive_at_item(DenseDecodeParams const& params, SharedItem const& item) {
  __threadfence();
  return atomicAdd(&item_counter(params, item), kArrived);
}

/// Waits until all parts are in memory; false when this CTA gave up, and leaves its slice to the last to arrive. One thread.
__device__ __forceinline__ bool wait_for_parts(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t& counter = item_counter(params, item);
  int64_t const start = clock64();
  while ((ptx::load_acquire(&counter) & kCountMask) != static_cast<uint32_t>(item.num_splits)) {
    if (clock64() - start < kPatience) continue;
    uint32_t const before = atomicAdd(&counter, kImpatient);
    __threadfence();
    return (before & kCountMask) == static_cast<uint32_t>(item.num_splits);
  }
  return true;
}

/// One thread, after the CTA's last read of the item.
__device__ __forceinline__ void leave_item(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t& counter = item_counter(params, item);
  uint32_t const before = atomicAdd(&counter, kDone);
  if ((before / kDone & kCountMask) + 1U == static_cast<uint32_t>(item.num_splits)) atomicExch(&counter, 0U);
}

/// The chunks that part `split` merges, and the rows they lie in.
struct Slice {
  int32_t first_chunk, num_chunks, first_row, num_rows;
};

__device__ __forceinline__ Slice slice_of(SharedItem const& item, int32_t split, int32_t rows) {
  int32_t const chunks = rows * kRowChunks, first = chunks * split / item.num_splits, last = chunks * (split + 1) / item.num_splits;
  int32_t const first_row = first / kRowChunks;
  return {first, last - first, first_row, (last + kRowChunks - 1) / kRowChunks - first_row};
}

/// Starts the copy of every part of a slice into shared memory.
__device__ __forceinline__ void fetch_slice(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item, Slice const& slice) {
  int32_t const units = slice.num_chunks * (kChunkBytes / 16), first_worker = first_worker_of(item);
  int32_t const step_parts = kOutputThreads / units, step_units = kOutputThreads % units;
  int32_t part = static_cast<int32_t>(threadIdx.x) / units, unit = static_cast<int32_t>(threadIdx.x) % units;
  auto const* const base = static_cast<char const*>(params.partial_values) + slice.first_chunk * kChunkBytes;
  uint32_t target = ptx::shared_address(&memory.values[threadIdx.x]);
#pragma unroll 1
  while (part < item.num_splits) {
    ptx::cp_async_16(target, base + slot_row(params, first_worker, part) * static_cast<int64_t>(kPartialRowBytes) + unit * 16, 16);
    target += kOutputThreads * 16;
    part += step_parts, unit += step_units;
    if (unit >= units) unit -= units, ++part;
  }
}

/// Where a row of an item goes.
struct RowTarget {
  int32_t token, head;
};
__device__ __forceinline__ RowTarget row_target(DenseDecodeParams const& params, int32_t row) {
  int32_t const token = token_of(params, row);
  return {token, row - token * params.h_q};
}

/// What the sink leaves of a row's output.
__device__ __forceinline__ float sink_factor_of(DenseDecodeParams const& params, int32_t head, float lse_log2) {
  return params.call.sink == nullptr ? 1.0F : device::sink_factor(params.call.sink[head], lse_log2);
}

__device__ __forceinline__ void write_lse(DenseDecodeParams const& params, int32_t request, RowTarget const& row, float lse_log2) {
  core::RowStrides const& stride = params.call.lse_stride;
  if (params.call.lse != nullptr)
    params.call.lse[request * stride.batch + row.token * stride.token + row.head * stride.head] =
        lse_log2 == -INFINITY ? params.empty_lse : lse_log2 * params.lse_factor;
}

/// Weights of all parts for every row of a slice, sink included, and the rows' lse. As many lanes a row as it has parts.
__device__ __forceinline__ void weigh_slice(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item, Slice const& slice) {
  int32_t const parts = item.num_splits, shift = min(5, 32 - __clz(parts - 1)), lanes = 1 << shift;
  int32_t const row = static_cast<int32_t>(threadIdx.x) >> shift, lane = static_cast<int32_t>(threadIdx.x) & (lanes - 1);
  int32_t const end = row < slice.num_rows ? parts : 0, first_worker = first_worker_of(item);
  float2* const weights = memory.weights + row * parts;
  float* const lse = memory.lse + row * parts;
  float max = -INFINITY, sum = 0.0F;
#pragma unroll 1
  for (int32_t part = lane; part < end; part += lanes) {
    int64_t const cell = slot_row(params, first_worker, part) + slice.first_row + row;
    float4 const found = __ldcg(reinterpret_cast<float4 const*>(params.partial_rows + cell));
    weights[part] = make_float2(found.y, found.z);
    lse[part] = found.x;
    max = fmaxf(max, found.x);
  }
#pragma unroll 1
  for (int32_t step = 1; step < lanes; step *= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffU, max, step));
  float const reference = max == -INFINITY ? 0.0F : max;
#pragma unroll 1
  for (int32_t part = lane; part < end; part += lanes) sum += lse[part] = exp2f(lse[part] - reference);
#pragma unroll 1
  for (int32_t step = 1; step < lanes; step *= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (end == 0) return;
  float const lse_log2 = sum > 0.0F ? max + log2f(sum) : -INFINITY;
  RowTarget const target = row_target(params, item.row_begin + slice.first_row + row);
  float const inverse = sum > 0.0F ? sink_factor_of(params, target.head, lse_log2) / sum : 0.0F;
#pragma unroll 1
  for (int32_t part = lane; part < end; part += lanes) {
    float const weight = lse[part] * inverse;
    weights[part] = make_float2(weights[part].x * weight, weights[part].y * weight);
  }
  bool const has_first_chunk = (slice.first_row + row) * kRowChunks >= slice.first_chunk;
  if (lane == 0 && has_first_chunk) write_lse(params, item.request, target, lse_log2);
}

/// Two neighbouring columns of a row to out, in its own type.
__device__ __forceinline__ void store_pair(DenseDecodeParams const& params, int64_t offset, float2 value) {
  bool const is_aligned = params.out_is_aligned != 0;
  if (params.out_dtype == FLASHMLA_FP32) {
    float* const out = static_cast<float*>(params.call.out) + offset;
    if (is_aligned) *reinterpret_cast<float2*>(out) = value;
    else out[0] = value.x, out[1] = value.y;
    return;
  }
  uint32_t const pair = params.out_dtype == FLASHMLA_BF16 ? pack<__nv_bfloat16>(value.x, value.y) : pack<__half>(value.x, value.y);
  uint16_t* const out = static_cast<uint16_t*>(params.call.out) + offset;
  if (is_aligned) *reinterpret_cast<uint32_t*>(out) = pair;
  else out[0] = static_cast<uint16_t>(pair), out[1] = static_cast<uint16_t>(pair >> 16);
}

/// Sums the parts of a slice and writes its rows. All output threads.
__device__ __forceinline__ void merge_slice(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item, Slice const& slice) {
  if (slice.num_chunks == 0) return;
  fetch_slice(memory, params, item, slice);
  weigh_slice(memory, params, item, slice);
  ptx::cp_async_wait_all();
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
  // A thread a word; where that leaves threads idle, groups of them share out the parts.
  int32_t const words = slice.num_chunks * kChunkWords, parts = item.num_splits;
  int32_t const shift = words >= kOutputThreads ? 8 : 32 - __clz(words - 1), groups = kOutputThreads >> shift;
  int32_t const group = static_cast<int32_t>(threadIdx.x) >> shift;
#pragma unroll 1
  for (int32_t first = 0; first < words; first += kOutputThreads) {
    int32_t const word = first + (static_cast<int32_t>(threadIdx.x) & ((1 << shift) - 1));
    int32_t const chunk = slice.first_chunk + word / kChunkWords, row = chunk / kRowChunks;
    auto const* const values = reinterpret_cast<__half2 const*>(memory.values) + word;
    auto const* const weights = reinterpret_cast<float const*>(memory.weights + (row - slice.first_row) * parts) + chunk % kRowChunks / 8;
    float2 sum = make_float2(0.0F, 0.0F);
#pragma unroll 4
    for (int32_t part = word < words ? group : parts; part < parts; part += groups) {
      float2 const value = __half22float2(values[part * words]);
      float const weight = weights[part * 2];
      sum.x = fmaf(weight, value.x, sum.x), sum.y = fmaf(weight, value.y, sum.y);
    }
    if (groups > 1) {
      memory.sums[threadIdx.x] = sum;
      ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
#pragma unroll 1
      for (int32_t other = 1; other < groups && group == 0; ++other) {
        float2 const more = memory.sums[threadIdx.x + (other << shift)];
        sum.x += more.x, sum.y += more.y;
      }
    }
    if (word >= words || group > 0) continue;
    RowTarget const target = row_target(params, item.row_begin + row);
    core::RowStrides const& stride = params.call.out_stride;
    int32_t const in_chunk = word % kChunkWords, column = chunk % kRowChunks * 32 + in_chunk % 4 * 8 + in_chunk / 4 * 2;
    store_pair(params, item.request * stride.batch + target.token * stride.token + target.head * stride.head + column, sum);
  }
}

/// Merges what this CTA owes to an item that it has a part of. `before`: the item's counter when this part arrived.
__device__ __forceinline__ void merge_item(MergeMemory& memory, uint32_t& can_merge, DenseDecodeParams const& params, SharedItem const& item,
                                           uint32_t before) {
  if (threadIdx.x == 0) can_merge = wait_for_parts(params, item) ? 1U : 0U;
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);  // also: the item before has been read
  int32_t const rows = min(kCtaRows, params.start.num_rows - item.row_begin);
  bool const is_last = (before & kCountMask) + 1U == static_cast<uint32_t>(item.num_splits), merges_all = is_last && before >= kImpatient;
  int32_t const first = merges_all ? 0 : item.split, last = merges_all ? item.num_splits : item.split + 1;
#pragma unroll 1
  for (int32_t split = first; split < last && can_merge != 0; ++split) {
    merge_slice(memory, params, item, slice_of(item, split, rows));
    ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
  }
  if (threadIdx.x == 0) leave_item(params, item);
}

}  // namespace flashmla::cuda::dense_decode
