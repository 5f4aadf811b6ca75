// The merge of batch-invariant chunks: a warp a row adds up what dense_decode.cuh has left of each of its chunks.
//
// Math: that of dense_decode_partials.cuh. The order depends on nothing but the number of chunks: weights are summed by lane and
//   then across the warp, values in the order of chunks.
// Roles: a lane has units `lane` and `lane` + 32 of the row: 16 of its 512 values. Of 256 it has unit `lane`. It also has the ends of chunk
//   `lane` of each 32.
// Timeline: ends and the values of four chunks -> largest lse -> sum of weights -> values, four chunks in flight -> out.
// Shared memory: none.
// Barriers: none.
// Registers: no constraint.
// Limits: at most core::kMaxChunks chunks a row. Rows of one chunk are finished already.
#pragma once

#include "cuda/kernels/dense_decode_partials.cuh"

namespace flashmla::cuda::dense_decode {

inline constexpr int kMergeWarps = 8;          // of a block
inline constexpr int64_t kMergeBlocks = 4096;  // at most: a ragged call has far fewer rows than it may have

/// Rows of a call, those of ragged requests counted as if each had as many as one may have.
__host__ __device__ constexpr int64_t num_merge_rows(DenseDecodeParams const& params) {
  return static_cast<int64_t>(params.call.batch) * params.start.kv_heads * params.call.q_tokens * params.heads;
}

/// Row `index` of all, and its number in `rows`; false where it does not exist.
__device__ __forceinline__ bool find_row(DenseDecodeParams const& params, int64_t index, RowSpan& rows) {
  int32_t const of_head = params.call.q_tokens * params.heads;
  auto const head = static_cast<int32_t>(index / of_head);  // of all requests
  rows.request = head / params.start.kv_heads;
  rows.kv_head = head % params.start.kv_heads;
  rows.row_begin = static_cast<int32_t>(index % of_head);
  core::QueryTokens const tokens = core::query_tokens(params.call.query_bounds(), rows.request);
  rows.num_rows = tokens.count * params.heads;
  rows.first_token = tokens.first;
  return rows.row_begin < rows.num_rows;
}

/// A row's chunks.
template <int kLatent>
struct ChunkCells {
  uint4 const* values;  // [chunk][chunk_rows][kRowUnits]
  float4 const* ends;   // [chunk][chunk_rows]: lse, scale of the first half of the columns; lse, scale of the second
  int32_t count;
  int64_t stride;  // chunk_rows

  [[nodiscard]] __device__ __forceinline__ uint4 unit(int32_t chunk, int32_t unit) const {
    return chunk < count ? __ldcg(values + chunk * stride * kRowUnits<kLatent> + unit) : make_uint4(0, 0, 0, 0);
  }
  [[nodiscard]] __device__ __forceinline__ float4 end(int32_t chunk) const {
    return chunk < count ? __ldcg(ends + chunk * stride) : make_float4(-INFINITY, 0.0F, -INFINITY, 0.0F);
  }
};

/// The largest lse of the chunks, and the sum of their weights against it. `own`: the end of chunk `lane`.
template <int kLatent>
__device__ __forceinline__ float2 sum_weights(ChunkCells<kLatent> const& chunks, float4 const& own, int32_t lane) {
  float max = own.x;
  for (int32_t c = lane + 32; c < chunks.count; c += 32) max = fmaxf(max, chunks.end(c).x);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffU, max, step));
  float const reference = max == -INFINITY ? 0.0F : max;
  float sum = ptx::exp2_approx(own.x - reference);
  for (int32_t c = lane + 32; c < chunks.count; c += 32) sum += ptx::exp2_approx(chunks.end(c).x - reference);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  return make_float2(max, sum);
}

/// Word k of lane q of a quad becomes word q of lane k.
__device__ __forceinline__ void transpose_quads(uint32_t (&words)[4], int32_t lane) {
  bool const is_odd = lane % 2 != 0, is_upper = lane / 2 % 2 != 0;
  uint32_t const low = __shfl_xor_sync(0xffffffffU, is_odd ? words[0] : words[1], 1),
                 high = __shfl_xor_sync(0xffffffffU, is_odd ? words[2] : words[3], 1);
  uint32_t const of_low[2] = {is_odd ? low : words[0], is_odd ? words[1] : low};
  uint32_t const of_high[2] = {is_odd ? high : words[2], is_odd ? words[3] : high};
  uint32_t const first = __shfl_xor_sync(0xffffffffU, is_upper ? of_low[0] : of_high[0], 2),
                 second = __shfl_xor_sync(0xffffffffU, is_upper ? of_low[1] : of_high[1], 2);
  words[0] = is_upper ? first : of_low[0], words[1] = is_upper ? second : of_low[1];
  words[2] = is_upper ? of_high[0] : first, words[3] = is_upper ? of_high[1] : second;
}

/// The lane's unit, times `factor`, to out from `offset` on. A multiprocessor stores a line in four cycles and a piece of one in three, so
/// where it can a lane stores 16 bytes: the lanes of a quad, which have a chunk of 64 bytes, first sort its columns. A warp.
__device__ __forceinline__ void store_units(DenseDecodeParams const& params, int64_t offset, float const (&value)[8], float factor,
                                            int32_t lane) {
  if (!is_out_wide(params)) {
#pragma unroll
    for (int k = 0; k < 4; ++k) store_pair(params, offset + 8 * k, make_float2(value[2 * k] * factor, value[2 * k + 1] * factor));
    return;
  }
  uint32_t words[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    float const low = value[2 * k] * factor, high = value[2 * k + 1] * factor;
    words[k] = params.out_dtype == FLASHMLA_BF16 ? pack<__nv_bfloat16>(low, high) : pack<__half>(low, high);
  }
  transpose_quads(words, lane);
  auto* const out = static_cast<uint16_t*>(params.call.out) + offset + lane % 4 * 6;  // columns 2 q of the chunk become 8 q
  *reinterpret_cast<uint4*>(out) = make_uint4(words[0], words[1], words[2], words[3]);
}

/// Row `index` of all, if it exists and has several chunks. A warp.
template <int kLatent>
__device__ __forceinline__ void merge_row(DenseDecodeParams const& params, int64_t index, int32_t lane) {
  constexpr int kSteps = kRowUnits<kLatent> / 32, kAhead = 4;
  RowSpan rows;
  if (!find_row(params, index, rows)) return;
  int32_t const kv_len = core::clamp_length(params.call.kv_len[rows.request], params.start.length_limit);
  int32_t const count = core::num_chunks(params.chunk_tokens, kv_len);
  if (count == 1) return;
  int64_t const first = chunk_row(params, rows, 0, rows.row_begin);
  ChunkCells<kLatent> const chunks{static_cast<uint4 const*>(params.partial_values) + first * kRowUnits<kLatent>,
                                   reinterpret_cast<float4 const*>(params.partial_rows) + first, count, params.chunk_rows};
  uint4 ahead[kAhead][kSteps];  // asked for before the weights are known
#pragma unroll
  for (int c = 0; c < kAhead; ++c)
#pragma unroll
    for (int step = 0; step < kSteps; ++step) ahead[c][step] = chunks.unit(c, step * 32 + lane);
  float4 end = chunks.end(lane);
  float2 const max_sum = sum_weights(chunks, end, lane);
  float const reference = max_sum.x == -INFINITY ? 0.0F : max_sum.x;
  float sums[kSteps][8] = {};
  // What takes a chunk's values to their share of the sum: of the half of the columns that the step's unit is in.
  auto const weight_of = [&](int32_t chunk, int step) {
    float const weight = ptx::exp2_approx(end.x - reference);
    float const low = __shfl_sync(0xffffffffU, weight * end.y, chunk % 32), high = __shfl_sync(0xffffffffU, weight * end.w, chunk % 32);
    return (kHalfUnits<kLatent> == 32 ? step : lane / kHalfUnits<kLatent>) == 0 ? low : high;
  };
#pragma unroll
  for (int c = 0; c < kAhead; ++c)
#pragma unroll
    for (int step = 0; step < kSteps; ++step) add_values(sums[step], ahead[c][step], weight_of(c, step));
#pragma unroll 4
  for (int32_t c = kAhead; c < count; ++c) {
    if (c % 32 == 0) end = chunks.end(c + lane);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) add_values(sums[step], chunks.unit(c, step * 32 + lane), weight_of(c, step));
  }
  SharedItem const item{rows, 0, 1};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    UnitTarget const target = unit_target<kLatent>(params, item, step * 32 + lane);
    store_units(params, target.offset, sums[step], finish_row(params, item, target.row, max_sum, step == 0 && lane == 0), lane);
  }
}

template <int kLatent>
__global__ void __launch_bounds__(kMergeWarps * 32) merge_chunks_kernel(DenseDecodeParams const __grid_constant__ params) {
  ptx::grid_dependency_wait();
  ptx::grid_launch_dependents();
  int64_t const rows = num_merge_rows(params), step = static_cast<int64_t>(gridDim.x) * kMergeWarps;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kMergeWarps + threadIdx.x / 32; index < rows; index += step)
    merge_row<kLatent>(params, index, static_cast<int32_t>(threadIdx.x % 32));
}

}  // namespace flashmla::cuda::dense_decode
