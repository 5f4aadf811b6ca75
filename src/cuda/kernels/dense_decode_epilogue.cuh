// The end of a part: O / l to out and lse where the part is the whole item or completes it, else a partial result to memory.
#pragma once

#include "cuda/kernels/dense_decode_exchange.cuh"
#include "cuda/ptx/copy.cuh"

namespace flashmla::cuda::dense_decode {

// kCount: numbers of O that a thread holds, of a half of 2 * kCount columns.

/// A row's columns as pairs of a 16-bit type. Plain 4-byte stores: a quad fills 16 bytes, two of them a sector of L2.
template <class Element, int kCount>
__device__ __forceinline__ void store_row_16bit(Element* target, float const (&o)[kCount], int half, int32_t lane, bool is_aligned) {
  Element* const first = target + 2 * (lane % 4);
  if (is_aligned) {
#pragma unroll
    for (int block = 0; block < kCount / 4; ++block)
      *reinterpret_cast<uint32_t*>(first + block * 8) =
          pack<Element>(o[accumulator_index(block, half, 0)], o[accumulator_index(block, half, 1)]);
  } else {
#pragma unroll
    for (int block = 0; block < kCount / 4; ++block) {
      uint32_t const pair = pack<Element>(o[accumulator_index(block, half, 0)], o[accumulator_index(block, half, 1)]);
      auto* const cells = reinterpret_cast<uint16_t*>(first + block * 8);
      cells[0] = static_cast<uint16_t>(pair), cells[1] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void store_row_fp32(float* target, float const (&o)[kCount], int half, int32_t lane, bool is_aligned) {
  float* const first = target + 2 * (lane % 4);
#pragma unroll
  for (int block = 0; block < kCount / 4; ++block) {
    float2 const value = make_float2(o[accumulator_index(block, half, 0)], o[accumulator_index(block, half, 1)]);
    if (is_aligned) *reinterpret_cast<float2*>(first + block * 8) = value;
    else first[block * 8] = value.x, first[block * 8 + 1] = value.y;
  }
}

/// A row into out at `offset` elements, in out's own type.
template <int kCount>
__device__ __forceinline__ void store_row(DenseDecodeParams const& params, int64_t offset, float const (&o)[kCount], int half,
                                          int32_t lane) {
  bool const is_aligned = params.out_alignment >= 8;
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_FP32) store_row_fp32(static_cast<float*>(out) + offset, o, half, lane, is_aligned);
  else if (params.out_dtype == FLASHMLA_BF16) store_row_16bit(static_cast<__nv_bfloat16*>(out) + offset, o, half, lane, is_aligned);
  else store_row_16bit(static_cast<__half*>(out) + offset, o, half, lane, is_aligned);
}

/// Half `half` of the thread's rows, finished: scaled in place, to out and lse.
template <int kCount>
__device__ __forceinline__ void write_whole_row(float (&o)[kCount], int half, RowEnds const& ends, DenseDecodeParams const& params,
                                                Part const& part, OutputThread const& me) {
  float const lse_log2 = ends.lse_log2[half], inverse = ends.inverse[half];
  RowTarget const target = row_target(params, part.rows, part.rows.row_begin + fragment_row(me.thread, half));
  float const factor = lse_log2 == -INFINITY ? 0.0F : inverse * sink_factor_of(params, target.head, lse_log2);
#pragma unroll
  for (int block = 0; block < kCount / 4; ++block) {
    o[accumulator_index(block, half, 0)] *= factor;
    o[accumulator_index(block, half, 1)] *= factor;
  }
  int64_t const offset = row_offset(params.call.out_stride, part.rows, target);
  store_row(params, offset + me.warpgroup * kCount * 2, o, half, me.lane);
  if (me.warpgroup == 0 && me.lane % 4 == 0) write_lse(params, part.rows, target, lse_log2);
}

/// The warp's 16 rows, finished, to a 16-bit out: 64 columns at a time through shared memory, so that a store fills whole lines
/// of four rows. Straight from the registers a store touches eight lines for 16 bytes each, and a part took 4 us to write.
template <class Element, int kCount>
__device__ __forceinline__ void store_rows_wide(float const (&o)[kCount], float const (&factor)[2], DenseDecodeParams const& params,
                                                Part const& part, OutputThread const& me) {
  int32_t const first_row = me.thread / 32 * 16, chunk = me.lane % 8;  // of eight columns
  uint16_t* targets[4];                                                // of rows first_row + 4 k + lane / 8
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    int32_t const index = part.rows.row_begin + first_row + 4 * k + me.lane / 8;
    int64_t const offset = row_offset(params.call.out_stride, part.rows, row_target(params, part.rows, index));
    bool const exists = index < part.rows.num_rows;
    targets[k] = exists ? static_cast<uint16_t*>(params.call.out) + offset + me.warpgroup * kCount * 2 + chunk * 8 : nullptr;
  }
#pragma unroll
  for (int group = 0; group < kCount / 32; ++group) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int const block = 8 * group + 2 * step + i / 2, half = i % 2;
        words[i] = pack<Element>(o[accumulator_index(block, half, 0)] * factor[half], o[accumulator_index(block, half, 1)] * factor[half]);
      }
      ptx::stmatrix_x4(me.staging + swizzled_offset(first_row + me.lane % 16, 2 * step + me.lane / 16), words);
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint4 const values = ptx::load_shared_16(me.staging + swizzled_offset(first_row + 4 * k + me.lane / 8, chunk));
      if (targets[k] != nullptr) *reinterpret_cast<uint4*>(targets[k] + group * 64) = values;
    }
    __syncwarp();
  }
}

/// Adds the second of an item's two parts to the first, which the threads hold: O becomes the sum, and its ends those of both
/// rows. The first part is rounded to FP16 like the second, so that whoever adds them up gets the same bits.
template <int kCount>
__device__ __forceinline__ void add_other_part(float (&o)[kCount], RowEnds& ends, float const (&largest)[2],
                                               DenseDecodeParams const& params, OutputThread const& me) {
  constexpr int kLatent = kCount * 4;
  int64_t const first_row = slot_row(params, static_cast<int32_t>(blockIdx.y), 1);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int64_t const row = first_row + fragment_row(me.thread, half);
    float2 const other_row = __ldcg(partial_end(params, row, me));
    uint4 values[kCount / 16];
#pragma unroll
    for (int i = 0; i < kCount / 16; ++i) values[i] = __ldcg(partial_units<kLatent>(params, row, me) + 4 * i);
    RowScale const scale(largest[half]);
    float const max = fmaxf(ends.lse_log2[half], other_row.x), reference = max == -INFINITY ? 0.0F : max;
    float const weight[2] = {ptx::exp2_approx(ends.lse_log2[half] - reference), ptx::exp2_approx(other_row.x - reference)};
    float const factor[2] = {weight[0] * (scale.down * ends.inverse[half]), weight[1] * other_row.y}, sum = weight[0] + weight[1];
#pragma unroll
    for (int i = 0; i < kCount / 16; ++i) {
      uint32_t const words[4] = {values[i].x, values[i].y, values[i].z, values[i].w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float &low = o[accumulator_index(4 * i + k, half, 0)], &high = o[accumulator_index(4 * i + k, half, 1)];
        uint32_t const own_word = pack<__half>(low * scale.up, high * scale.up);
        float2 const own = __half22float2(reinterpret_cast<__half2 const&>(own_word));
        float2 const other = __half22float2(reinterpret_cast<__half2 const&>(words[k]));
        low = fmaf(factor[1], other.x, fmaf(factor[0], own.x, 0.0F)), high = fmaf(factor[1], other.y, fmaf(factor[0], own.y, 0.0F));
      }
    }
    ends.set(half, max, sum);
  }
}

/// The thread's two rows at the end of a part whose max (log2 units) and sum are those of the whole row. `takes_item`: the item's
/// other part is in memory, and is to be added.
template <Calls kCalls, int kLatent>
__device__ __forceinline__ void write_part(RowState<kLatent>& row, DenseDecodeParams const& params, Part const& part, bool takes_item,
                                           OutputThread me) {
  // In short calls nothing below is worked out ahead of the tiles: it would take registers from them.
  if constexpr (kCalls == Calls::kFew) {
    ptx::hide_origin(me.warpgroup), ptx::hide_origin(me.thread), ptx::hide_origin(me.lane);
    ptx::hide_origin(me.staging);
  }
  float(&o)[kOutputs<kLatent>] = row.o;
  // Rows that do not exist have nothing to write; a warp's 16 rows are decided together because of the shuffles.
  if (part.rows.row_begin + fragment_row(me.thread & ~31, 0) >= part.rows.num_rows) return;
  RowEnds ends;
#pragma unroll
  for (int half = 0; half < 2; ++half) ends.set(half, row.max[half], row.sum[half]);
  if (!part.is_whole()) {
    float largest[2];
    largest_of_rows(o, largest);
    bool const is_exchanged = kCalls == Calls::kFew && part.is_exchanged, is_giver = me.warpgroup != part.split;
    bool is_there = takes_item;  // the other part
    if (is_exchanged && !is_giver) {
      round_rows(o, ends, largest);
      is_there = wait_for_rows(exchange_flag(params, part, me));
    }
    if (!is_there) {
      write_partial_rows(o, largest, ends, partial_place<kCalls>(params, part), params, me);
      if (!is_exchanged || !is_left_behind(exchange_flag(params, part, me), is_giver, me.lane)) return;
      if (is_giver) round_rows(o, ends, largest);
    }
    if (kCalls == Calls::kFew) add_given_rows(o, ends, params, part, me);
    else add_other_part(o, ends, largest, params, me);
  }
  if (is_out_wide(params)) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int32_t const index = part.rows.row_begin + fragment_row(me.thread, half), rows = part.rows.num_rows;
      RowTarget const target = row_target(params, part.rows, min(index, rows - 1));
      factor[half] =
          ends.lse_log2[half] == -INFINITY ? 0.0F : ends.inverse[half] * sink_factor_of(params, target.head, ends.lse_log2[half]);
      if (me.warpgroup == 0 && me.lane % 4 == 0 && index < rows) write_lse(params, part.rows, target, ends.lse_log2[half]);
    }
    if (params.out_dtype == FLASHMLA_BF16) store_rows_wide<__nv_bfloat16>(o, factor, params, part, me);
    else store_rows_wide<__half>(o, factor, params, part, me);
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (part.rows.row_begin + fragment_row(me.thread, half) < part.rows.num_rows) write_whole_row(o, half, ends, params, part, me);
}

}  // namespace flashmla::cuda::dense_decode
