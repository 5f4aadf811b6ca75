// Items that several CTAs of transposed/kernel.cuh share: each leaves a partial result, and each merges a slice of the rows.
//
// A cell is what one of the eight warps has of a row: 64 columns as FP16, eight units of 16 bytes, and a head: the part's lse, and what takes
// the values back to O / l. Unit u has columns 256 side + 16 (warp % 4) + 64 b + 8 h + u (b = 0 .. 3, h = 0, 1), as the registers of one
// thread hold them, times the power of two that brings the cell's largest close to FP16's. A warp writes its cells without asking the
// others; a cell is read by one CTA.
//
// Sentinel. Memory says itself what is there: between runs all its bits are 1, which no value's rounding gives, and who merges a cell
// leaves it so. So nobody waits for stores to be in memory before it says that they are, and for a counter before it looks: a fence, an
// addition and an acquiring look are not on the way.
//
// Patience. Nothing guarantees that the GPU runs all CTAs of a grid at once, so nobody waits longer than kPatience for parts that may not have
// begun: who gives up leaves a flag, and the last CTA of the item to arrive merges the slices whose flags it finds. It changes no bit.
#pragma once

#include "cuda/kernels/transposed/state.cuh"

namespace flashmla::cuda::dense_decode::transposed {

inline constexpr uint32_t kNothing = 0xffffffffU;  // two NaN that no conversion to FP16 gives; a NaN that no sum gives
inline constexpr int kMergeParts = 4;              // of a unit that a thread has in flight
/// Cycles that a CTA waits for parts that have been counted: they are on their way, but memory may be slow where other kernels hold
/// multiprocessors and poll. Only a schedule that is none makes it wait in vain; nobody hangs then.
inline constexpr int64_t kLongPatience = int64_t{1} << 30;

using CellHead = float2;  // lse (log2 units; -inf: the part saw no key), scale

// A slot: units [row][warp][unit], and behind them heads [warp][row]: whole lines, since a multiprocessor stores one in four cycles, and a
// piece of one in three.
inline constexpr uint32_t kUnitBytes = 16, kSlotCells = kRows * kOutputWarps, kHeadsOffset = kSlotCells * 8 * kUnitBytes;
inline constexpr uint32_t kSlotBytes = kHeadsOffset + kSlotCells * sizeof(CellHead);

__device__ __forceinline__ uint32_t head_offset(int32_t row, int32_t warp) {
  return kHeadsOffset + static_cast<uint32_t>(warp * kRows + row) * sizeof(CellHead);
}
__device__ __forceinline__ char* slot_of(DenseDecodeParams const& params, int32_t worker, int32_t split) {
  return static_cast<char*>(params.cells) + static_cast<uint32_t>(core::partial_slot(worker, split)) * kSlotBytes;
}

/// Where the thread's unit of its row 0 goes, and the head of the row that it writes: lanes 4 i + q those of lanes % 4 = q, `i`-th rows.
struct CellPlace {
  char *unit, *head;
  int32_t head_row;

  __device__ __forceinline__ CellPlace(DenseDecodeParams const& params, int32_t split, Multiplier const& me) {
    char* const slot = slot_of(params, static_cast<int32_t>(blockIdx.y), split);
    auto const cell = static_cast<uint32_t>(me.row(0) * kOutputWarps + me.warp);
    head_row = me.lane < 16 ? me.row(me.lane / 4) : kRows;
    unit = slot + (cell * 8 + static_cast<uint32_t>(me.lane / 4)) * kUnitBytes, head = slot + head_offset(head_row, me.warp);
  }
};

/// The warp's share of the part to its slot.
__device__ __forceinline__ void write_cells(State const& state, CellPlace const& place, int32_t rows, Multiplier const& me) {
  float largest[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) largest[i] = largest_value(state, i);
  over_lanes(largest, Largest{});
  float max = state.max[0], sum = state.sum[0], down = 0.0F;  // of the head's row
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    RowScale const scale(largest[i]);
    float const up = scale.up;
    uint4 const unit = make_uint4(pack<__half>(value_of(state, i, 0) * up, value_of(state, i, 1) * up),
                                  pack<__half>(value_of(state, i, 2) * up, value_of(state, i, 3) * up),
                                  pack<__half>(value_of(state, i, 4) * up, value_of(state, i, 5) * up),
                                  pack<__half>(value_of(state, i, 6) * up, value_of(state, i, 7) * up));
    if (me.lane / 4 == i) max = state.max[i], sum = state.sum[i], down = scale.down;
    uint32_t const cells = static_cast<uint32_t>(i / 2 * 8 + i % 2) * kOutputWarps;  // from the thread's row 0
    if (me.row(i) < rows) __stcg(reinterpret_cast<uint4*>(place.unit + cells * 8 * kUnitBytes), unit);
  }
  RowEnd const end = row_end(max, sum);
  if (place.head_row < rows) __stcg(reinterpret_cast<CellHead*>(place.head), make_float2(end.lse_log2, down * end.inverse));
}

/// Of an item's CTA: the flag that says that its slice is left to others.
__device__ __forceinline__ uint32_t* abandoned_flag(DenseDecodeParams const& params, SharedItem const& item, int32_t split) {
  auto* const flags = reinterpret_cast<uint32_t*>(static_cast<char*>(params.workspace) + sizeof(core::WorkspaceHeader));
  return flags + (first_worker_of(item) + split) * kExchangeFlags + (split == 0 ? 1 : 0);  // a worker may have parts of two items
}

/// Leaves the CTA's slice to the last CTA to arrive; false: all have arrived by now, so it does not. One thread.
__device__ __forceinline__ bool give_up(DenseDecodeParams const& params, SharedItem const& item) {
  uint32_t* const flag = abandoned_flag(params, item, item.split);
  atomicExch(flag, 1U);
  uint32_t const now = ptx::add_acquire_release(&item_counter(params, item), kImpatient);
  // If all have arrived, whoever takes the flag back merges.
  return (now & kCountMask) != static_cast<uint32_t>(item.num_splits) || atomicExch(flag, 0U) == 0U;
}

/// Counts the CTA's partial results once they are on their way to memory. One thread, when all parts are announced.
__device__ __forceinline__ void count_parts(Shared& s, DenseDecodeParams const& params) {
  uint32_t const events = s.num_events;
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    SharedItem const& item = s.items[event];
    ptx::mbarrier_wait(s.stored[event], 0);
    uint32_t const seen = ptx::add_relaxed(&item_counter(params, item), kArrived) + kArrived;
    s.rescues[event] = (seen & kCountMask) == static_cast<uint32_t>(item.num_splits) && seen >= kImpatient ? 1U : 0U;
    s.clears[event] = 1;
    ptx::mbarrier_arrive(s.counted[event]);
  }
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    ptx::mbarrier_wait(s.merged[event], 0);
    leave_item(params, s.items[event]);
  }
}

/// A value of a row to out, in its own type.
__device__ __forceinline__ void store_value(DenseDecodeParams const& params, int64_t offset, float value) {
  if (params.out_dtype == FLASHMLA_BF16) static_cast<__nv_bfloat16*>(params.call.out)[offset] = __float2bfloat16_rn(value);
  else if (params.out_dtype == FLASHMLA_FP16) static_cast<__half*>(params.call.out)[offset] = __float2half_rn(value);
  else static_cast<float*>(params.call.out)[offset] = value;
}

/// A unit's values to out, the first's place being `offset`.
template <class Out, class Convert>
__device__ __forceinline__ void store_unit(void* out, int64_t offset, float const (&values)[8], float factor, Convert const& convert) {
  Out* const to = static_cast<Out*>(out) + offset;
#pragma unroll
  for (int v = 0; v < 8; ++v) to[v / 2 * 64 + v % 2 * 8] = convert(values[v] * factor);
}
__device__ __forceinline__ void store_unit(DenseDecodeParams const& params, int64_t offset, float const (&values)[8], float factor) {
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_BF16)
    store_unit<__nv_bfloat16>(out, offset, values, factor, [](float v) { return __float2bfloat16_rn(v); });
  else if (params.out_dtype == FLASHMLA_FP16) store_unit<__half>(out, offset, values, factor, [](float v) { return __float2half_rn(v); });
  else store_unit<float>(out, offset, values, factor, [](float v) { return v; });
}

/// What a row's summed values are multiplied by; its lse to memory if `writes_lse`.
__device__ __forceinline__ float finish(DenseDecodeParams const& params, SharedItem const& item, int32_t row, float max, float sum,
                                        bool writes_lse) {
  bool const is_empty = !(sum > 0.0F);
  float const factor = is_empty ? 0.0F : __fdividef(1.0F, sum);
  if (!writes_lse && params.call.sink == nullptr) return factor;
  float const lse_log2 = is_empty ? -INFINITY : max + log2f(sum);
  RowTarget const target = row_target(params, item.rows, item.rows.row_begin + row);
  if (writes_lse) write_lse(params, item.rows, target, lse_log2);
  return is_empty ? 0.0F : factor * sink_factor_of(params, target.head, lse_log2);
}

/// A unit of a part with its head, as it is now.
struct FoundUnit {
  uint4 values;
  CellHead head;

  /// Of all words the largest: kNothing while some are not there.
  [[nodiscard]] __device__ __forceinline__ uint32_t largest_word() const {
    return max(max(max(values.x, values.y), max(values.z, values.w)), max(__float_as_uint(head.x), __float_as_uint(head.y)));
  }
};

/// Which unit of up to 32 cells of an item a thread merges, or shares with a group of 2 to 32 threads, which share out its parts; and where all
/// of it lies.
struct MergePlace {
  int32_t first, count;  // cells
  int32_t shift;         // log2 of the group
  char *units, *heads;   // of part `rank` as if it were not part 0
  int64_t out;           // the unit's first value
  int32_t row, warp;     // of the cell

  MergePlace() = default;
  __device__ __forceinline__ MergePlace(DenseDecodeParams const& params, SharedItem const& item, int32_t first_cell, int32_t last_cell) {
    auto const thread = static_cast<int32_t>(threadIdx.x);
    first = first_cell, count = min(last_cell - first_cell, 32);
    shift = count > 16 ? 0 : __clz(count - 1) - 27;
    int32_t const cell = first + min(local(), count - 1);
    row = cell / kOutputWarps, warp = cell % kOutputWarps;
    char* const slot = static_cast<char*>(params.cells) + static_cast<uint32_t>(2 * (first_worker_of(item) + rank())) * kSlotBytes;
    units = slot + static_cast<uint32_t>(cell * 8 + thread % 8) * kUnitBytes, heads = slot + head_offset(row, warp);
    RowTarget const target = row_target(params, item.rows, item.rows.row_begin + row);
    out = row_offset(params.call.out_stride, item.rows, target) + warp / 4 * kSideColumns + warp % 4 * 16 + thread % 8;
  }
  [[nodiscard]] __device__ __forceinline__ int32_t group() const { return 1 << shift; }
  [[nodiscard]] __device__ __forceinline__ int32_t rank() const { return static_cast<int32_t>(threadIdx.x / 8) & (group() - 1); }
  [[nodiscard]] __device__ __forceinline__ int32_t local() const { return static_cast<int32_t>(threadIdx.x / 8) >> shift; }
};

/// The cells of the slice of part `split`.
struct Slice {
  int32_t first, last;

  __device__ __forceinline__ Slice(SharedItem const& item, int32_t split) {
    int32_t const cells = min(kRows, item.rows.num_rows - item.rows.row_begin) * kOutputWarps;
    first = cells * split / item.num_splits, last = cells * (split + 1) / item.num_splits;
  }
};

/// Where the merge of the slice of part `split` begins.
__device__ __forceinline__ MergePlace merge_begin(DenseDecodeParams const& params, SharedItem const& item, int32_t split) {
  Slice const slice(item, split);
  return MergePlace(params, item, slice.first, slice.last);
}

/// How a merge waits for parts.
struct MergeWait {
  int64_t patience;     // cycles
  uint64_t* were_read;  // where a warp arrives once all cells have been read; null: nowhere
};

/// Merges the cells of `place`, of all their parts. All multiplying threads. False where parts did not come in time, and nothing is changed.
__device__ __forceinline__ bool merge_cells(Shared& s, DenseDecodeParams const& params, SharedItem const& item, MergePlace const& place,
                                            MergeWait const& how) {
  auto const thread = static_cast<int32_t>(threadIdx.x);
  int32_t const unit = thread % 8, parts = item.num_splits, group = place.group(), rank = place.rank();
  bool const exists = place.local() < place.count;
  uint32_t const stride = static_cast<uint32_t>(2 * group) * kSlotBytes, of_part_0 = rank == 0 ? kSlotBytes : 0U;  // core::partial_slot
  float most = -INFINITY, sum = 0.0F, value[8] = {};
  bool is_late = false;
#pragma unroll 1
  for (int32_t part = rank, step = 0; part < parts; part += kMergeParts * group, step += kMergeParts) {
    FoundUnit found[kMergeParts];
    uint32_t largest;
    int64_t const start = clock64();
    do {
      largest = 0;
#pragma unroll
      for (int p = 0; p < kMergeParts; ++p) {
        uint32_t const at = static_cast<uint32_t>(step + p) * stride + (step + p == 0 ? of_part_0 : 0U);
        found[p] = {make_uint4(0, 0, 0, 0), make_float2(-INFINITY, 0.0F)};
        if (!exists || part + p * group >= parts) continue;
        found[p] = {ptx::load_relaxed_16(reinterpret_cast<uint4 const*>(place.units + at)),
                    ptx::load_relaxed_8(reinterpret_cast<CellHead const*>(place.heads + at))};
      }
#pragma unroll
      for (int p = 0; p < kMergeParts; ++p) largest = ::max(largest, found[p].largest_word());
      is_late = clock64() - start >= how.patience;
    } while (largest == kNothing && !is_late);
    is_late = largest == kNothing;
    if (is_late) break;
    float const before = most;
#pragma unroll
    for (int p = 0; p < kMergeParts; ++p) most = fmaxf(most, found[p].head.x);
    float const reference = fmaxf(most, kLowestReference);
    if (step > 0) {
      float const factor = ptx::exp2_approx(before - reference);
      sum *= factor;
#pragma unroll
      for (float& v : value) v *= factor;
    }
#pragma unroll
    for (int p = 0; p < kMergeParts; ++p) {
      float const weight = ptx::exp2_approx(found[p].head.x - reference), scaled = weight * found[p].head.y;
      uint32_t const pairs[4] = {found[p].values.x, found[p].values.y, found[p].values.z, found[p].values.w};
      sum += weight;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float2 const pair = __half22float2(reinterpret_cast<__half2 const&>(pairs[k]));
        value[2 * k] = fmaf(scaled, pair.x, value[2 * k]), value[2 * k + 1] = fmaf(scaled, pair.y, value[2 * k + 1]);
      }
    }
  }
  if (ptx::named_barrier_any(kOutputBarrier, kOutputThreads, is_late)) return false;
  if (how.were_read != nullptr && thread % 32 == 0) ptx::mbarrier_arrive(*how.were_read);
  // Over the threads of a unit: lanes 8 and 16 apart, then warps.
  if (group > 1) {
    float all = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 8));
    if (group > 2) all = fmaxf(all, __shfl_xor_sync(0xffffffffU, all, 16));
    float const factor = ptx::exp2_approx(most - fmaxf(all, kLowestReference));
    most = all, sum *= factor;
#pragma unroll
    for (float& v : value) v *= factor;
#pragma unroll
    for (int step = 8; step < 32; step *= 2) {
      if (group <= step / 8) break;
      sum += __shfl_xor_sync(0xffffffffU, sum, step);
#pragma unroll
      for (float& v : value) v += __shfl_xor_sync(0xffffffffU, v, step);
    }
  }
  bool const is_first = place.warp == 0 && unit == 0;
  if (group <= 4) {
    if (exists && rank == 0) store_unit(params, place.out, value, finish(params, item, place.row, most, sum, is_first));
    return true;
  }
  int32_t const warp = thread / 32, warps = group / 4;
  if (thread % 32 < 8) {
    s.merge.max[warp][unit] = most, s.merge.sum[warp][unit] = sum;
#pragma unroll
    for (int v = 0; v < 8; ++v) s.merge.values[warp][v][unit] = value[v];
  }
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
  int32_t const number = rank;  // of the value that the thread finishes, eight a unit
  if (!exists || number >= 8) return true;
  int32_t const first_warp = warp / warps * warps;
  float total = 0.0F;
  most = -INFINITY, sum = 0.0F;
  for (int32_t w = first_warp; w < first_warp + warps; ++w) most = fmaxf(most, s.merge.max[w][unit]);
  float const reference = fmaxf(most, kLowestReference);
  for (int32_t w = first_warp; w < first_warp + warps; ++w) {
    float const weight = ptx::exp2_approx(s.merge.max[w][unit] - reference);
    sum = fmaf(s.merge.sum[w][unit], weight, sum), total = fmaf(s.merge.values[w][number][unit], weight, total);
  }
  float const factor = finish(params, item, place.row, most, sum, is_first && number == 0);
  store_value(params, place.out + number / 2 * 64 + number % 2 * 8, total * factor);
  return true;
}

/// The slice of part `split`, from `place` on; the rest as above. False: parts did not come in time.
__device__ __forceinline__ bool merge_slice(Shared& s, DenseDecodeParams const& params, SharedItem const& item, int32_t split,
                                            MergePlace place, MergeWait const& how) {
  int32_t const last = Slice(item, split).last;
#pragma unroll 1
  while (true) {
    bool const is_end = place.first + 32 >= last;
    if (!merge_cells(s, params, item, place, {how.patience, is_end ? how.were_read : nullptr})) return false;
    if (is_end) return true;
    place = MergePlace(params, item, place.first + 32, last);
  }
}

/// Leaves nothing where a slice's cells were, for the next run; by `threads`.
__device__ __forceinline__ void clear_slice(DenseDecodeParams const& params, SharedItem const& item, int32_t split, int32_t thread,
                                            int32_t threads) {
  Slice const slice(item, split);
  for (int32_t part = thread / 8; part < item.num_splits; part += threads / 8) {
    char* const slot = slot_of(params, first_worker_of(item) + part, part);
#pragma unroll 4
    for (int32_t cell = slice.first; cell < slice.last; ++cell) {
      __stcg(reinterpret_cast<uint4*>(slot + static_cast<uint32_t>(cell * 8 + thread % 8) * kUnitBytes),
             make_uint4(kNothing, kNothing, kNothing, kNothing));
      if (thread % 8 == 0)
        __stcg(reinterpret_cast<uint2*>(slot + head_offset(cell / kOutputWarps, cell % kOutputWarps)), make_uint2(kNothing, kNothing));
    }
  }
}

/// The first two loading warps, at the end: clear what the CTA merges, unless it gives it up.
__device__ __forceinline__ void clear_slices(Shared& s, DenseDecodeParams const& params) {
#pragma unroll 1
  for (uint32_t event = 0; event < s.num_events; ++event) {
    ptx::mbarrier_wait(s.merged[event], 0);
    if (s.clears[event] == 0) continue;
    clear_slice(params, s.items[event], s.items[event].split, static_cast<int32_t>(threadIdx.x) - kOutputThreads, (kLoaders - 1) * 32);
  }
}

/// What does not happen unless other kernels hold multiprocessors: gives up a slice whose parts did not come, or merges those that others have
/// left to this CTA, and clears them.
__device__ __noinline__ void merge_late(Shared& s, DenseDecodeParams const* params, uint32_t event, bool is_merged) {
  SharedItem const& item = s.items[event];
  int32_t const left_by_others = s.rescues[event] != 0 ? item.num_splits : 0;
  __threadfence();
  // Step -1 is the CTA's own slice. All in one loop, as a merge is much code.
#pragma unroll 1
  for (int32_t step = is_merged ? 0 : -1; step < left_by_others; ++step) {
    bool const is_own = step < 0;
    ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
    if (threadIdx.x == 0 && is_own) s.clears[event] = give_up(*params, item) ? 0U : 1U;
    if (threadIdx.x == 0 && !is_own) s.rescues[event] = atomicExch(abandoned_flag(*params, item, step), 0U);
    ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
    if ((is_own ? s.clears[event] : s.rescues[event]) == 0) continue;
    int32_t const split = is_own ? item.split : step;
    bool const is_done = merge_slice(s, *params, item, split, merge_begin(*params, item, split), {kLongPatience, nullptr});
    ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
    if (!is_own && is_done) clear_slice(*params, item, split, static_cast<int32_t>(threadIdx.x), kOutputThreads);
    if (is_own && !is_done && threadIdx.x == 0) s.clears[event] = 0;
  }
}

/// What this CTA owes to an item. `place`: of its first cells.
__device__ __forceinline__ void merge_item(Shared& s, DenseDecodeParams const& params, uint32_t event, MergePlace const& place,
                                           Multiplier const& me) {
  SharedItem const& item = s.items[event];
  bool const has_cells = place.count > 0,
             is_merged = !has_cells || merge_slice(s, params, item, item.split, place, {kPatience, &s.merged[event]});
  ptx::mbarrier_wait(s.counted[event], 0);
  if (!is_merged || s.rescues[event] != 0) merge_late(s, &params, event, is_merged);
  if (!has_cells || !is_merged) arrive_warp(s.merged[event], me.lane);
}

}  // namespace flashmla::cuda::dense_decode::transposed
