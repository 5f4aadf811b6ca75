// Items that several CTAs share: each leaves a partial result, and when all are there, each merges a slice of the rows.
//
// Math. With partial values h_s (FP16), their scales c_s and l_s (log2 of the sum of exponentials, -inf when empty):
//     m = max l_s,  w_s = 2^(l_s - m) / sum 2^(l_s - m),  out = sum (w_s c_s) h_s,  lse_log2 = m + log2 sum 2^(l_s - m).
//
// Slices. A row's 512 values lie in 16 chunks of 64 bytes, 256 values in 8. Of an item's C = 16 * rows chunks, part p of n merges
//   chunks C p / n .. C (p + 1) / n, so that every CTA has the same to do however many rows and parts there are.
//
// Two parts. Of items cut in two, the second part is the first thing that its CTA does, and the first part the last. Where that finds
//   the other in memory, it takes the item: it adds what is there to what it holds, and writes the rows like those of a whole item.
//
// Order. A counter an item: parts that have arrived, parts that are done with it, parts that would not wait. When a CTA has
//   stored its part, one thread adds it (release); once the CTA has no tiles left, that thread waits (acquire) until all have
//   arrived. Not every warp for itself: additions to one address queue up. Nothing guarantees that the GPU runs all CTAs of a
//   grid at once, so nobody waits longer than kPatience: who gives up says so, and the last to arrive then merges the whole
//   item. Who is done last leaves 0 for the next run. The result is the same bits whoever merges.
//
// Threads. The two warpgroups that hold O. Latency is all that counts: a thread asks for everything that it adds up at once.
#pragma once

#include "cuda/device/merge_row.cuh"
#include "cuda/kernels/dense_decode_part.cuh"
#include "cuda/ptx/math.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/sync.cuh"
#include "cuda/tile/fragment.hpp"

namespace flashmla::cuda::dense_decode {

inline constexpr int kOutputThreads = 256;  // that hold O, 64 rows x kLatent columns; the CTA's first
inline constexpr int kOutputWarps = kOutputThreads / 32;
inline constexpr int kOutputBarrier = 1;  // a named barrier of theirs
// A unit is 16 bytes. Chunk c of a row has columns 32 c .. + 31 and units 4 c .. + 3, of which unit q has its columns 8 k + 2 q and
// 8 k + 2 q + 1, k = 0 .. 3. The first half of the units is of the half of O that warpgroup 0 holds.
template <int kLatent>
inline constexpr int kRowUnits = kLatent / 8;
template <int kLatent>
inline constexpr int kHalfUnits = kRowUnits<kLatent> / 2;
template <int kLatent>
inline constexpr int kRowChunks = kLatent / 32;
inline constexpr int64_t kPatience = 1 << 16;  // cycles, about 40 us

/// Sums over parts on their way from warp to warp.
struct MergeMemory {
  float max[kOutputWarps][32], sum[kOutputWarps][32];
  float2 values[kOutputWarps][4][32];  // pair k of the lane's unit
};

/// A thread that holds O.
struct OutputThread {
  int32_t warpgroup;  // 0: the first half of the columns; 1: the second
  int32_t thread;     // in the warpgroup
  int32_t lane;
  uint32_t staging;  // 8 KB of shared memory of its warpgroup: 64 rows x 64 columns of 16 bits, swizzled
  uint32_t kv;       // where the stages are, free once the CTA's last tile is done
};

/// An item that the CTA has a part of.
struct alignas(16) SharedItem {
  RowSpan rows;
  int32_t split;
  int32_t num_splits;  // 0: there is nothing to do about it
};

// Fields of an item's counter.
inline constexpr uint32_t kArrived = 1U, kDone = 1U << 10, kImpatient = 1U << 20, kTaken = 1U << 31, kCountMask = kDone - 1;

__device__ __forceinline__ int32_t first_worker_of(SharedItem const& item) { return static_cast<int32_t>(blockIdx.y) - item.split; }

__device__ __forceinline__ uint32_t& item_counter(DenseDecodeParams const& params, SharedItem const& item) {
  return static_cast<core::WorkspaceHeader*>(params.workspace)->counters[first_worker_of(item) * params.start.group + blockIdx.x];
}

/// First row (of this CTA's 64) in the slot of an item's part.
__device__ __forceinline__ int64_t slot_row(DenseDecodeParams const& params, int32_t first_worker, int32_t split) {
  return (static_cast<int64_t>(core::partial_slot(first_worker + split, split)) * params.start.group + blockIdx.x) * kCtaRows;
}

/// The largest |o| of each of the thread's rows, over the half that its warpgroup holds.
template <int kCount>
__device__ __forceinline__ void largest_of_rows(float const (&o)[kCount], float (&largest)[2]) {
  float chains[2][4] = {};  // independent, or every step would wait for the one before
#pragma unroll
  for (int block = 0; block < kCount / 4; ++block)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& chain = chains[half][block % 4];
      chain = fmaxf(chain, fmaxf(fabsf(o[accumulator_index(block, half, 0)]), fabsf(o[accumulator_index(block, half, 1)])));
    }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const* const c = chains[half];
    float const own = fmaxf(fmaxf(c[0], c[1]), fmaxf(c[2], c[3])), pair = fmaxf(own, __shfl_xor_sync(0xffffffffU, own, 1));
    largest[half] = fmaxf(pair, __shfl_xor_sync(0xffffffffU, pair, 2));
  }
}

/// What a thread knows of its two rows at the end of a part.
struct RowEnds {
  float lse_log2[2];  // -inf: the row saw no key
  float inverse[2];   // 1 / l; 0 then

  /// Of maximum `max` (log2 units) and l relative to it.
  __device__ __forceinline__ void set(int half, float max, float sum) {
    bool const is_empty = !(sum > 0.0F);
    lse_log2[half] = is_empty ? -INFINITY : max + log2f(sum);
    inverse[half] = is_empty ? 0.0F : __fdividef(1.0F, sum);
  }
};

/// The power of two that brings a row's values close to FP16's largest, and back: 2^14 <= largest * up < 2^15, and down = 1 / up,
/// both exact; tiny rows keep what up = 2^126 leaves of them.
struct RowScale {
  float up, down;

  __device__ __forceinline__ explicit RowScale(float largest) {
    uint32_t const exponent = max(__float_as_uint(largest) >> 23, 15U);
    up = __uint_as_float((268U - exponent) << 23), down = __uint_as_float((exponent - 14U) << 23);
  }
};

/// Where the CTA's 64 rows of a partial result go.
struct PartialPlace {
  int64_t first_row;
  int32_t num_rows;  // that have a place
};

template <Calls kCalls>
__device__ __forceinline__ PartialPlace partial_place(DenseDecodeParams const& params, Part const& part) {
  if (!is_chunked<kCalls>(params)) return {slot_row(params, static_cast<int32_t>(blockIdx.y) - part.split, part.split), kCtaRows};
  return {chunk_row(params, part.rows, part.split, part.rows.row_begin), part.rows.num_rows - part.rows.row_begin};
}

/// Where the thread's values of a partial row lie, every fourth unit from there on, and what is known of its half of the row.
template <int kLatent>
__device__ __forceinline__ uint4* partial_units(DenseDecodeParams const& params, int64_t row, OutputThread const& me) {
  return static_cast<uint4*>(params.partial_values) + row * kRowUnits<kLatent> + me.warpgroup * kHalfUnits<kLatent> + me.lane % 4;
}
__device__ __forceinline__ float2* partial_end(DenseDecodeParams const& params, int64_t row, OutputThread const& me) {
  return reinterpret_cast<float2*>(params.partial_rows) + row * 2 + me.warpgroup;
}

/// The thread's two rows, as FP16 to memory.
template <int kCount>
__device__ __forceinline__ void write_partial_rows(float const (&o)[kCount], float const (&largest)[2], RowEnds const& ends,
                                                   PartialPlace const& place, DenseDecodeParams const& params, OutputThread const& me) {
  constexpr int kLatent = kCount * 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (fragment_row(me.thread, half) >= place.num_rows) continue;
    int64_t const row = place.first_row + fragment_row(me.thread, half);
    RowScale const scale(largest[half]);
    uint4* const values = partial_units<kLatent>(params, row, me);
#pragma unroll
    for (int i = 0; i < kCount / 16; ++i) {
      uint32_t word[4];
#pragma unroll
      for (int k = 0; k < 4; ++k)
        word[k] = pack<__half>(o[accumulator_index(4 * i + k, half, 0)] * scale.up, o[accumulator_index(4 * i + k, half, 1)] * scale.up);
      __stcg(values + 4 * i, make_uint4(word[0], word[1], word[2], word[3]));
    }
    if (me.lane % 4 == 0) __stcg(partial_end(params, row, me), make_float2(ends.lse_log2[half], scale.down * ends.inverse[half]));
  }
}

/// After the CTA's last store of a part: says to the GPU that it is in memory. True for the last part to arrive if others
/// would not wait for it. One thread.
__device__ __forceinline__ bool arrive_at_item(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t const before = ptx::add_acquire_release(&item_counter(params, item), kArrived);
  return (before & kCountMask) + 1U == static_cast<uint32_t>(item.num_splits) && before >= kImpatient;
}

/// Waits until all parts are in memory; false when this CTA gave up, and leaves its slice to the last to arrive. One thread.
__device__ __forceinline__ bool wait_for_parts(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t& counter = item_counter(params, item);
  auto const parts = static_cast<uint32_t>(item.num_splits);
  int64_t const start = clock64();
  while ((ptx::load_acquire(&counter) & kCountMask) != parts) {
    if (clock64() - start < kPatience) continue;
    return (ptx::add_acquire_release(&counter, kImpatient) & kCountMask) == parts;
  }
  return true;
}

/// Once all parts are in memory: whether the first of two has taken the item.
__device__ __forceinline__ bool is_taken(DenseDecodeParams const& params, SharedItem const& item) {
  return item.num_splits == 2 && item.split == 1 && ptx::load_acquire(&item_counter(params, item)) >= kTaken;
}

/// One thread, when the CTA needs the counter no more. What it has yet to read stays as it is until the grid ends.
__device__ __forceinline__ void leave_item(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t& counter = item_counter(params, item);
  uint32_t const before = atomicAdd(&counter, kDone);
  if ((before / kDone & kCountMask) + 1U == static_cast<uint32_t>(item.num_splits)) atomicExch(&counter, 0U);
}

/// For the first of two parts, before it is written: true if the other is in memory, so that this CTA adds it to its own and nobody
/// has to do more about the item. One thread.
__device__ __forceinline__ bool take_item(DenseDecodeParams const& params, SharedItem& item) {
  uint32_t& counter = item_counter(params, item);
  if ((ptx::load_acquire(&counter) & kCountMask) != 1U) return false;
  uint32_t const before = atomicAdd(&counter, kTaken + kDone + kArrived);
  if ((before / kDone & kCountMask) == 1U) atomicExch(&counter, 0U);  // the other would not wait
  item.num_splits = 0;
  return true;
}

/// What the sink leaves of a row's output.
__device__ __forceinline__ float sink_factor_of(DenseDecodeParams const& params, int32_t head, float lse_log2) {
  return params.call.sink == nullptr ? 1.0F : device::sink_factor(params.call.sink[head], lse_log2);
}

__device__ __forceinline__ void write_lse(DenseDecodeParams const& params, RowSpan const& rows, RowTarget const& row, float lse_log2) {
  if (params.call.lse != nullptr)
    params.call.lse[row_offset(params.call.lse_stride, rows, row)] =
        lse_log2 == -INFINITY ? params.empty_lse : lse_log2 * params.lse_factor;
}

/// Two neighbouring columns of a row to out, in its own type.
__device__ __forceinline__ void store_pair(DenseDecodeParams const& params, int64_t offset, float2 value) {
  bool const is_aligned = params.out_alignment >= 8;
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

/// Out takes 16 bytes of a 16-bit type at once.
__device__ __forceinline__ bool is_out_wide(DenseDecodeParams const& params) {
  return params.out_alignment >= 16 && params.out_dtype != FLASHMLA_FP32;
}

/// Adds a unit's values, FP16, to sums of them.
__device__ __forceinline__ void add_values(float (&sums)[8], uint4 const& values, float weight) {
  uint32_t const words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    float2 const pair = __half22float2(reinterpret_cast<__half2 const&>(words[k]));
    sums[2 * k] = fmaf(weight, pair.x, sums[2 * k]), sums[2 * k + 1] = fmaf(weight, pair.y, sums[2 * k + 1]);
  }
}

/// A unit of a row, summed over some parts: value / sum, at 2^max.
struct UnitSum {
  float max = -INFINITY, sum = 0.0F, value[8] = {};

  /// Brings the sums to a maximum that is not below the present one.
  __device__ __forceinline__ void raise(float to) {
    float const factor = max == to ? 1.0F : ptx::exp2_approx(max - to);  // also where both are -inf
    max = to, sum *= factor;
#pragma unroll
    for (float& v : value) v *= factor;
  }
  __device__ __forceinline__ void add(uint4 const& values, float weight) { add_values(value, values, weight); }
  /// Adds what lane ^ step has, at the larger maximum of both.
  __device__ __forceinline__ void add_from_lane(int32_t step) {
    raise(fmaxf(max, __shfl_xor_sync(0xffffffffU, max, step)));
    sum += __shfl_xor_sync(0xffffffffU, sum, step);
#pragma unroll
    for (float& v : value) v += __shfl_xor_sync(0xffffffffU, v, step);
  }
  __device__ __forceinline__ void give(MergeMemory& memory, int32_t warp, int32_t lane) const {
    memory.max[warp][lane] = max, memory.sum[warp][lane] = sum;
#pragma unroll
    for (int k = 0; k < 4; ++k) memory.values[warp][k][lane] = make_float2(value[2 * k], value[2 * k + 1]);
  }
};

/// A slice: the units that part `split` merges, counted from the item's first.
struct Slice {
  int32_t first_unit, num_units;
};

template <int kLatent>
__device__ __forceinline__ Slice slice_of(SharedItem const& item, int32_t split, int32_t rows) {
  uint32_t const chunks = static_cast<uint32_t>(rows * kRowChunks<kLatent>), parts = static_cast<uint32_t>(item.num_splits);
  int32_t const first = static_cast<int32_t>(chunks * split / parts), last = static_cast<int32_t>(chunks * (split + 1) / parts);
  return {first * 4, (last - first) * 4};
}

/// Where an item's parts lie.
template <int kLatent>
struct PartCells {
  uint4 const* values;  // of the first worker's slots
  float2 const* rows;   // lse, scale
  int32_t slot_units;   // from a slot to the next

  __device__ __forceinline__ PartCells(DenseDecodeParams const& params, SharedItem const& item)
      : slot_units(params.start.group * kCtaRows * kRowUnits<kLatent>) {
    int64_t const unit = slot_row(params, first_worker_of(item), 0) * kRowUnits<kLatent> - slot_units;
    values = static_cast<uint4 const*>(params.partial_values) + unit;
    rows = reinterpret_cast<float2 const*>(params.partial_rows) + unit / kHalfUnits<kLatent>;
  }
  __device__ __forceinline__ int32_t unit_of(int32_t part, int32_t unit) const {
    return (2 * part + (part == 0 ? 1 : 0)) * slot_units + unit;
  }
};

/// Adds parts first, first + step, ... below `end` of kUnits units to their sums, kParts at a time, all of them in flight.
template <int kUnits, int kParts, int kLatent>
__device__ __forceinline__ void add_parts(UnitSum (&sums)[kUnits], PartCells<kLatent> const& cells, int32_t const (&units)[kUnits],
                                          int32_t first, int32_t end, int32_t step) {
#pragma unroll 1
  for (; first < end; first += kParts * step) {
    uint4 values[kUnits][kParts];
    float2 rows[kUnits][kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p)
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        values[u][p] = make_uint4(0, 0, 0, 0), rows[u][p] = make_float2(-INFINITY, 0.0F);
        if (first + p * step >= end) continue;
        int32_t const cell = cells.unit_of(first + p * step, units[u]);
        rows[u][p] = __ldcg(cells.rows + cell / kHalfUnits<kLatent>), values[u][p] = __ldcg(cells.values + cell);
      }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      float max = sums[u].max;
#pragma unroll
      for (int p = 0; p < kParts; ++p) max = fmaxf(max, rows[u][p].x);
      sums[u].raise(max);
      float const reference = max == -INFINITY ? 0.0F : max;
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        float const weight = ptx::exp2_approx(rows[u][p].x - reference);
        sums[u].sum += weight;
        sums[u].add(values[u][p], weight * rows[u][p].y);
      }
    }
  }
}

/// Where a unit goes.
struct UnitTarget {
  RowTarget row;
  int64_t offset;  // of its first column in out
};
template <int kLatent>
__device__ __forceinline__ UnitTarget unit_target(DenseDecodeParams const& params, SharedItem const& item, int32_t unit) {
  RowTarget const row = row_target(params, item.rows, item.rows.row_begin + unit / kRowUnits<kLatent>);
  int32_t const in_row = unit % kRowUnits<kLatent>;
  return {row, row_offset(params.call.out_stride, item.rows, row) + in_row / 4 * 32 + in_row % 4 * 2};
}

/// What a merged row's values are multiplied by; its lse to memory if `is_first` of its units.
__device__ __forceinline__ float finish_row(DenseDecodeParams const& params, SharedItem const& item, RowTarget const& row, float2 max_sum,
                                            bool is_first) {
  bool const is_empty = !(max_sum.y > 0.0F);
  float const lse_log2 = is_empty ? -INFINITY : max_sum.x + log2f(max_sum.y);
  if (is_first) write_lse(params, item.rows, row, lse_log2);
  return is_empty ? 0.0F : __fdividef(1.0F, max_sum.y) * sink_factor_of(params, row.head, lse_log2);
}

/// A merged unit to out; the first of a row also brings its lse.
template <int kLatent>
__device__ __forceinline__ void write_unit(UnitSum const& sum, DenseDecodeParams const& params, SharedItem const& item, int32_t unit,
                                           UnitTarget const& target) {
  float const factor = finish_row(params, item, target.row, make_float2(sum.max, sum.sum), unit % kRowUnits<kLatent> == 0);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    store_pair(params, target.offset + 8 * k, make_float2(sum.value[2 * k] * factor, sum.value[2 * k + 1] * factor));
}

/// Adds up what the groups of threads have of the slice's units, each with a copy of them in its `group_warps` warps (or in
/// every warp, where a group is smaller), and writes it: a pair of columns a thread.
template <int kLatent>
__device__ __forceinline__ void write_groups(MergeMemory const& memory, DenseDecodeParams const& params, SharedItem const& item,
                                             Slice const& slice, int32_t group_warps) {
#pragma unroll 1
  for (int32_t pair = threadIdx.x; pair < slice.num_units * 4; pair += kOutputThreads) {
    int32_t const local = pair / 4, k = pair % 4, lane = local % 32, unit = slice.first_unit + local;
    UnitTarget const target = unit_target<kLatent>(params, item, unit);
    float maxima[kOutputWarps], max = -INFINITY, sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kOutputWarps; ++w) {
      maxima[w] = w % group_warps == local / 32 ? memory.max[w][lane] : -INFINITY;
      max = fmaxf(max, maxima[w]);
    }
    float const reference = max == -INFINITY ? 0.0F : max;
    float2 value = make_float2(0.0F, 0.0F);
#pragma unroll
    for (int w = 0; w < kOutputWarps; ++w) {
      float const factor = ptx::exp2_approx(maxima[w] - reference);
      if (factor == 0.0F) continue;
      float2 const more = memory.values[w][k][lane];
      sum = fmaf(memory.sum[w][lane], factor, sum), value.x = fmaf(more.x, factor, value.x), value.y = fmaf(more.y, factor, value.y);
    }
    float const factor = finish_row(params, item, target.row, make_float2(max, sum), unit % kRowUnits<kLatent> == 0 && k == 0);
    store_pair(params, target.offset + 8 * k, make_float2(value.x * factor, value.y * factor));
  }
}

/// What a CTA waits for before it merges an item, in shared memory.
struct MergeGate {
  uint64_t& mergeable;
  uint32_t const& can_merge;

  /// All output threads; false: this CTA gave up.
  __device__ __forceinline__ bool wait() const {
    ptx::mbarrier_wait(mergeable, 0);
    ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);  // also: the slice before has been read
    return can_merge != 0;
  }
};

/// Merges a slice, kUnits units a thread at once. kUnits 1 also takes slices of fewer units than threads: groups of threads
/// then share out the parts, unless a thread can ask for all of them at once. What does not depend on the other parts is worked
/// out before they are there.
template <int kUnits, int kParts, int kLatent>
__device__ __forceinline__ void merge_slice(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item,
                                            Slice const& slice, MergeGate const& gate) {
  int32_t const thread = static_cast<int32_t>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  // A group is 4 to 256 threads.
  bool const is_alone = kUnits > 1 || slice.num_units >= kOutputThreads || item.num_splits <= kParts;
  int32_t const shift = is_alone ? 8 : 32 - __clz(slice.num_units - 1);
  int32_t const group = thread >> shift, groups = kOutputThreads >> shift;
  PartCells<kLatent> const cells(params, item);
  bool is_open = false;
#pragma unroll 1
  for (int32_t base = 0; base < slice.num_units; base += kOutputThreads * kUnits) {
    UnitSum sums[kUnits];
    int32_t units[kUnits], count = 0;
    UnitTarget targets[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      int32_t const unit = base + u * kOutputThreads + (thread & ((1 << shift) - 1));
      count += unit < slice.num_units ? 1 : 0;
      units[u] = slice.first_unit + min(unit, slice.num_units - 1);  // the last twice rather than none
      targets[u] = unit_target<kLatent>(params, item, units[u]);
    }
    if (!is_open && !gate.wait()) return;
    is_open = true;
    add_parts<kUnits, kParts>(sums, cells, units, count > 0 ? group : item.num_splits, item.num_splits, groups);
    if (kUnits == 1 && groups > 1) {
#pragma unroll 1
      for (int32_t step = 1 << shift; step < 32; step *= 2) sums[0].add_from_lane(step);
      sums[0].give(memory, warp, lane);
      ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
      write_groups<kLatent>(memory, params, item, slice, max(1, (1 << shift) / 32));
      return;
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      if (u < count) write_unit<kLatent>(sums[u], params, item, units[u], targets[u]);
  }
}

template <Calls kCalls, int kLatent>
__device__ __forceinline__ void merge_slice_of(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item, int32_t split,
                                               MergeGate const& gate) {
  Slice const slice = slice_of<kLatent>(item, split, min(kCtaRows, item.rows.num_rows - item.rows.row_begin));
  if (slice.num_units == 0) return;
  // Slices of two parts: in the order, and to the bits, of add_other_part.
  bool const may_share = kCalls == Calls::kFew || item.num_splits > 2;
  if (item.num_splits > 4 || (may_share && slice.num_units < kOutputThreads)) merge_slice<1, 8, kLatent>(memory, params, item, slice, gate);
  else if (item.num_splits > 2) merge_slice<2, 4, kLatent>(memory, params, item, slice, gate);
  else merge_slice<4, 2, kLatent>(memory, params, item, slice, gate);
}

/// Merges what this CTA owes to an item: its slice, and all others too where `merges_all` says so once the gate is open.
template <Calls kCalls, int kLatent>
__device__ __forceinline__ void merge_item(MergeMemory& memory, DenseDecodeParams const& params, SharedItem const& item,
                                           MergeGate const& gate, uint32_t const& merges_all) {
  int32_t count = 1;
#pragma unroll 1
  for (int32_t i = 0, split = item.split; i < count; ++i) {
    merge_slice_of<kCalls, kLatent>(memory, params, item, split, gate);
    if (i == 0) {
      gate.wait();
      count = merges_all != 0 ? item.num_splits : 1;
    }
    split = split + 1 == item.num_splits ? 0 : split + 1;
  }
}

}  // namespace flashmla::cuda::dense_decode
