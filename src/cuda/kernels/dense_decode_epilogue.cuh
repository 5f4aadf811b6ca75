// The end of a part in dense_decode.cuh: normalise, then to out, to the merge kernel, or to the other half of a pair.
#pragma once

#include "cuda/kernels/dense_decode_consumer.cuh"

namespace flashmla::cuda::dense_decode {

/// A row's columns as pairs of a 16-bit type. Plain 4-byte stores: a quad fills 16 bytes, two of them a sector of L2, and
/// the code is as short as can be, which matters more (it runs once a part, from cold instruction caches).
template <class Element>
__device__ __forceinline__ void store_row_16bit(Element* target, RowState const& row, int half, int32_t lane, bool is_aligned) {
  Element* const first = target + 2 * (lane % 4);
  if (is_aligned) {
#pragma unroll
    for (int block = 0; block < 32; ++block)
      *reinterpret_cast<uint32_t*>(first + block * 8) =
          pack<Element>(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
  } else {
#pragma unroll
    for (int block = 0; block < 32; ++block) {
      uint32_t const pair = pack<Element>(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
      auto* const cells = reinterpret_cast<uint16_t*>(first + block * 8);
      cells[0] = static_cast<uint16_t>(pair), cells[1] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

__device__ __forceinline__ void store_row_fp32(float* target, RowState const& row, int half, int32_t lane, bool is_aligned) {
  float* const first = target + 2 * (lane % 4);
#pragma unroll
  for (int block = 0; block < 32; ++block) {
    float2 const value = make_float2(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
    if (is_aligned) *reinterpret_cast<float2*>(first + block * 8) = value;
    else first[block * 8] = value.x, first[block * 8 + 1] = value.y;
  }
}

/// A row into out at `offset` elements, in out's own type.
__device__ __forceinline__ void store_row(DenseDecodeParams const& params, int64_t offset, RowState const& row, int half, int32_t lane) {
  bool const is_aligned = params.out_is_aligned != 0;
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_FP32) store_row_fp32(static_cast<float*>(out) + offset, row, half, lane, is_aligned);
  else if (params.out_dtype == FLASHMLA_BF16) store_row_16bit(static_cast<__nv_bfloat16*>(out) + offset, row, half, lane, is_aligned);
  else store_row_16bit(static_cast<__half*>(out) + offset, row, half, lane, is_aligned);
}

/// What the sink leaves of a row's output: 2^lse / (2^lse + 2^sink).
__device__ __forceinline__ float sink_factor(DenseDecodeParams const& params, int32_t row, float lse_log2) {
  if (params.call.sink == nullptr || row >= params.call.q_tokens * params.h_q) return 1.0F;
  int32_t const head = row - token_of(params, row) * params.h_q;
  return 1.0F / (1.0F + exp2f(params.call.sink[head] * 1.4426950408889634F - lse_log2));
}

/// What a thread knows of its two rows at the end of a part.
struct RowResult {
  float lse_log2[2];  // -inf: the row saw no key
};

/// O / l in place, from both warpgroups' shares of l; times the sink's factor where no other part follows.
__device__ __forceinline__ RowResult normalise(RowState& row, float const (&row_sum)[2][kCtaRows], DenseDecodeParams const& params,
                                               Part const& part, int32_t thread) {
  RowResult result;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const local = fragment_row(thread, half);
    float const sum = row_sum[0][local] + row_sum[1][local];
    bool const is_empty = !(sum > 0.0F);
    result.lse_log2[half] = is_empty ? -INFINITY : row.max[half] + log2f(sum);
    float factor = is_empty ? 0.0F : __fdividef(1.0F, sum);
    if (part.is_whole && !is_empty) factor *= sink_factor(params, part.row_begin + local, result.lse_log2[half]);
#pragma unroll
    for (int block = 0; block < 32; ++block) {
      row.o[accumulator_index(block, half, 0)] *= factor;
      row.o[accumulator_index(block, half, 1)] *= factor;
    }
  }
  return result;
}

/// Whether any of the warp's 16 rows exists; the others have nothing to write.
__device__ __forceinline__ bool warp_has_rows(DenseDecodeParams const& params, Part const& part, Consumer const& me) {
  return part.row_begin + fragment_row(me.thread & ~31, 0) < params.call.q_tokens * params.h_q;
}

/// First cell (row 0 of this CTA) of a slot of partial results.
__device__ __forceinline__ int64_t slot_cell(DenseDecodeParams const& params, int32_t worker, int32_t split) {
  return (static_cast<int64_t>(core::partial_slot(worker, split)) * params.group + blockIdx.x) * kCtaRows;
}

/// One of three or more parts: rows for merge_splits.
__device__ __forceinline__ void write_partial(RowState const& row, RowResult const& result, DenseDecodeParams const& params,
                                              Part const& part, Consumer const& me) {
  int64_t const first = slot_cell(params, blockIdx.y, part.split);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const local = fragment_row(me.thread, half);
    bool const exists = part.row_begin + local < params.call.q_tokens * params.h_q;
    if (exists && me.warpgroup == 0 && me.lane % 4 == 0) params.partial_lse[first + local] = result.lse_log2[half];
    if (exists) store_row_fp32(params.partial_out + (first + local) * kLatent + me.warpgroup * 256, row, half, me.lane, true);
  }
}

/// This thread's registers of a pair's half: [32][256 threads], behind its CTA's first cell.
__device__ __forceinline__ float4* pair_values(DenseDecodeParams const& params, int64_t cell) {
  return reinterpret_cast<float4*>(params.partial_out + cell * kLatent) + threadIdx.x;
}

__device__ __forceinline__ void write_first_half(RowState const& row, RowResult const& result, Shared& s, DenseDecodeParams const& params,
                                                 Part const& part, Consumer& me) {
  int64_t const cell = slot_cell(params, blockIdx.y, part.split);
  if (warp_has_rows(params, part, me)) {
    float4* const values = pair_values(params, cell);
#pragma unroll
    for (int i = 0; i < 32; ++i)
      __stcg(values + i * kConsumerThreads, make_float4(row.o[4 * i], row.o[4 * i + 1], row.o[4 * i + 2], row.o[4 * i + 3]));
    if (me.warpgroup == 0 && me.lane % 4 == 0)
      __stcg(params.partial_lse + cell + fragment_row(me.thread, 0), result.lse_log2[0]),
          __stcg(params.partial_lse + cell + fragment_row(me.thread, 1), result.lse_log2[1]);
  }
  if (threadIdx.x == 0) s.publish[me.events] = &pair_counter(params, part);
  arrive_warp(s.published[me.events++], me.lane);
}

/// Warp 9 + event: makes the first half visible to the GPU, then says so.
__device__ __forceinline__ void publish_half(Shared& s, int32_t event) {
  ptx::mbarrier_wait(s.published[event], 0);
  if (threadIdx.x % 32 != 0 || s.publish[event] == nullptr) return;
  __threadfence();
  atomicAdd(s.publish[event], 4U);
}

/// Waits for the first half and adds it to this one.
__device__ __forceinline__ void add_first_half(RowState& row, RowResult& result, DenseDecodeParams const& params, Part const& part,
                                               Consumer const& me) {
  if (threadIdx.x == 0) {
    uint32_t& counter = pair_counter(params, part);
    while ((ptx::load_acquire(&counter) & 4U) == 0U) {
    }
    counter = 0;
  }
  ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);
  if (!warp_has_rows(params, part, me)) return;
  int64_t const cell = slot_cell(params, blockIdx.y + 1 - 2 * part.split, 1 - part.split);
  float weight[2], other[2];  // of this half and the one in memory
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const lse_other = __ldcg(params.partial_lse + cell + fragment_row(me.thread, half)), lse = result.lse_log2[half],
                max = fmaxf(lse, lse_other);
    weight[half] = lse == -INFINITY ? 0.0F : exp2f(lse - max);
    other[half] = lse_other == -INFINITY ? 0.0F : exp2f(lse_other - max);
    float const sum = weight[half] + other[half], inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
    result.lse_log2[half] = sum > 0.0F ? max + log2f(sum) : -INFINITY;
    float const factor =
        sum > 0.0F ? inverse * sink_factor(params, part.row_begin + fragment_row(me.thread, half), result.lse_log2[half]) : 0.0F;
    weight[half] *= factor, other[half] *= factor;
  }
  bool const is_part_0 = part.split == 0;
  float4 const* const values = pair_values(params, cell);
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    float4 const value = __ldcg(values + i * kConsumerThreads);
    float const theirs[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float const mine = weight[e / 2] * row.o[4 * i + e], sum = other[e / 2] * theirs[e];
      row.o[4 * i + e] = is_part_0 ? fmaf(other[e / 2], theirs[e], mine) : fmaf(weight[e / 2], row.o[4 * i + e], sum);
    }
  }
}

/// A finished row to out and lse.
__device__ __forceinline__ void write_row(RowState const& row, RowResult const& result, int half, DenseDecodeParams const& params,
                                          Part const& part, Consumer const& me) {
  int32_t const index = part.row_begin + fragment_row(me.thread, half);
  if (index >= params.call.q_tokens * params.h_q) return;
  int32_t const token = token_of(params, index), head = index - token * params.h_q;
  core::RowStrides const &stride = params.call.out_stride, &lse = params.call.lse_stride;
  store_row(params, part.request * stride.batch + token * stride.token + head * stride.head + me.warpgroup * 256, row, half, me.lane);
  if (me.warpgroup == 0 && me.lane % 4 == 0 && params.call.lse != nullptr)
    params.call.lse[part.request * lse.batch + token * lse.token + head * lse.head] =
        result.lse_log2[half] == -INFINITY ? params.empty_lse : result.lse_log2[half] * params.lse_factor;
}

__device__ __forceinline__ void write_part(RowState& row, Shared& s, DenseDecodeParams const& params, Part const& part, uint32_t part_index,
                                           Consumer& me) {
  RowResult result = normalise(row, s.row_sum[part_index % 2], params, part, me.thread);
  if (part.is_pair) {
    if ((s.arrival[part_index % 2] & 3U) == 0U) return write_first_half(row, result, s, params, part, me);
    add_first_half(row, result, params, part, me);
  }
  if (!warp_has_rows(params, part, me)) return;
  if (part.is_whole || part.is_pair) {
    write_row(row, result, 0, params, part, me);
    write_row(row, result, 1, params, part, me);
  } else {
    write_partial(row, result, params, part, me);
  }
}

}  // namespace flashmla::cuda::dense_decode
