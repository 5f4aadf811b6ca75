// The end of a part of transposed/kernel.cuh: rows to out and lse where the part is a whole item, else a partial result to memory.
#pragma once

#include "cuda/kernels/transposed/cells.cuh"

namespace flashmla::cuda::dense_decode::transposed {

/// O times `factor`, as rows of a 16-bit type in shared memory. All multiplying threads.
template <class Element>
__device__ __forceinline__ void stage_rows(State const& state, float const (&factor)[kThreadRows], Shared& s, Multiplier const& me) {
  int32_t const column = me.side * kSideColumns + me.thread / 32 * 16 + me.lane / 8 % 2 * 8;
#pragma unroll
  for (int pair = 0; pair < kRows / 16; ++pair) {
    uint32_t const first = ptx::shared_address(&s.staged[pair * 16 + me.lane / 16 * 8 + me.lane % 8][column]);
#pragma unroll
    for (int block = 0; block < kSideBoxes; ++block) {
      uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        int const of_rows = 2 * pair + k / 2, half = k % 2;
        words[k] = pack<Element>(state.o[block][accumulator_index(of_rows, half, 0)] * factor[2 * of_rows],
                                 state.o[block][accumulator_index(of_rows, half, 1)] * factor[2 * of_rows + 1]);
      }
      ptx::stmatrix_transposed(first + block * 64 * 2, words);
    }
  }
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
}

/// Staged rows to a 16-bit out that takes 16 bytes at once: eight neighbouring columns a thread.
__device__ __forceinline__ void copy_out(Shared& s, DenseDecodeParams const& params, Part const& part, int32_t rows) {
#pragma unroll 4
  for (int32_t unit = threadIdx.x; unit < rows * kRowUnits<kLatent>; unit += kOutputThreads) {
    int32_t const row = unit / kRowUnits<kLatent>, column = unit % kRowUnits<kLatent> * 8;
    int64_t const offset = row_offset(params.call.out_stride, part.rows, row_target(params, part.rows, part.rows.row_begin + row)) + column;
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(params.call.out) + offset) = *reinterpret_cast<uint4 const*>(&s.staged[row][column]);
  }
}

/// Rows straight from the registers to any out.
__device__ __forceinline__ void store_rows(State const& state, float const (&factor)[kThreadRows], DenseDecodeParams const& params,
                                           Part const& part, int32_t rows, Multiplier const& me) {
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    if (me.row(i) >= rows) continue;
    int64_t const first = row_offset(params.call.out_stride, part.rows, row_target(params, part.rows, part.rows.row_begin + me.row(i))) +
                          me.side * kSideColumns + me.thread / 32 * 16 + me.lane / 4;
#pragma unroll
    for (int k = 0; k < 2 * kSideBoxes; ++k) {
      int64_t const offset = first + k / 2 * 64 + k % 2 * 8;
      store_value(params, offset, value_of(state, i, k) * factor[i]);
    }
  }
}

/// Staged FP16 rows to their place in the workspace, in the units of dense_decode_partials.cuh.
__device__ __forceinline__ void copy_partial(Shared& s, DenseDecodeParams const& params, PartialPlace const& place, int32_t rows) {
  uint4* const values = static_cast<uint4*>(params.partial_values) + place.first_row * kRowUnits<kLatent>;
#pragma unroll 4
  for (int32_t unit = threadIdx.x; unit < rows * kRowUnits<kLatent>; unit += kOutputThreads) {
    int32_t const row = unit / kRowUnits<kLatent>, in_row = unit % kRowUnits<kLatent>;
    uint16_t const* const from = &s.staged[row][in_row / 4 * 32 + in_row % 4 * 2];
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) words[k] = *reinterpret_cast<uint32_t const*>(from + 8 * k);
    __stcg(values + unit, make_uint4(words[0], words[1], words[2], words[3]));
  }
}

/// A chunk to its place in the workspace.
__device__ __forceinline__ void write_chunk(State const& state, Shared& s, DenseDecodeParams const& params, Part const& part, int32_t rows,
                                            Multiplier const& me) {
  PartialPlace const place = partial_place<Calls::kAny>(params, part);
  float factor[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) factor[i] = largest_value(state, i);
  over_lanes(factor, Largest{});
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);  // l has been read
  over_warps(factor, s.warp_sum, me, Largest{}, me.side * 4, 4);
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    RowScale const scale(factor[i]);
    factor[i] = scale.up;
    RowEnd const end = row_end(state.max[i], state.sum[i]);
    if (me.thread < 4 && me.row(i) < rows)
      __stcg(reinterpret_cast<float2*>(params.partial_rows) + (place.first_row + me.row(i)) * 2 + me.side,
             make_float2(end.lse_log2, scale.down * end.inverse));
  }
  stage_rows<__half>(state, factor, s, me);
  copy_partial(s, params, place, rows);
}

/// A whole item to out and lse.
__device__ __forceinline__ void write_item(State const& state, Shared& s, DenseDecodeParams const& params, Part const& part, int32_t rows,
                                           Multiplier const& me) {
  float factor[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    RowTarget const target = row_target(params, part.rows, part.rows.row_begin + min(me.row(i), rows - 1));
    RowEnd const end = row_end(state.max[i], state.sum[i]);
    factor[i] = end.lse_log2 == -INFINITY ? 0.0F : end.inverse * sink_factor_of(params, target.head, end.lse_log2);
    if (threadIdx.x < 4 && me.row(i) < rows) write_lse(params, part.rows, target, end.lse_log2);
  }
  if (!is_out_wide(params)) {
    store_rows(state, factor, params, part, rows, me);
    return;
  }
  if (params.out_dtype == FLASHMLA_BF16) stage_rows<__nv_bfloat16>(state, factor, s, me);
  else stage_rows<__half>(state, factor, s, me);
  copy_out(s, params, part, rows);
}

}  // namespace flashmla::cuda::dense_decode::transposed
