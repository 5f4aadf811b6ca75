// The merge of batch-invariant chunks: a warp a row adds up what dense_decode.cuh has left of each of its chunks.
//
// Math: that of dense_decode_partials.cuh. The order depends on nothing but the number of chunks: weights are summed by lane and
//   then across the warp, values in the order of chunks.
// Roles: a lane has units `lane` and `lane` + 32 of the row: 16 of its 512 values. Of 256 it has unit `lane`.
// Timeline: largest lse -> sum of weights -> values, four chunks in flight.
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
struct ChunkCells {
  uint4 const* values;  // [chunk][chunk_rows][kRowUnits]
  float2 const* rows;   // [chunk][chunk_rows][2 halves]: lse, scale
  int32_t count;
  int64_t stride;  // chunk_rows
};

/// The largest lse of the chunks, and the sum of their weights against it.
__device__ __forceinline__ float2 sum_weights(ChunkCells const& chunks, int32_t lane) {
  float max = -INFINITY;
  for (int32_t c = lane; c < chunks.count; c += 32) max = fmaxf(max, __ldcg(chunks.rows + 2 * c * chunks.stride).x);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffU, max, step));
  float sum = 0.0F;
  float const reference = max == -INFINITY ? 0.0F : max;
  for (int32_t c = lane; c < chunks.count; c += 32) sum += ptx::exp2_approx(__ldcg(chunks.rows + 2 * c * chunks.stride).x - reference);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  return make_float2(max, sum);
}

/// Adds a unit of every chunk's values, which lies in half `half`, to `sums`.
template <int kLatent>
__device__ __forceinline__ void add_chunks(float (&sums)[8], ChunkCells const& chunks, float reference, int32_t half, int32_t unit) {
#pragma unroll 4
  for (int32_t c = 0; c < chunks.count; ++c) {
    float2 const row = __ldcg(chunks.rows + 2 * c * chunks.stride + half);
    uint4 const values = __ldcg(chunks.values + c * chunks.stride * kRowUnits<kLatent> + unit);
    float const weight = ptx::exp2_approx(row.x - reference) * row.y;
    uint32_t const words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float2 const pair = __half22float2(reinterpret_cast<__half2 const&>(words[k]));
      sums[2 * k] = fmaf(weight, pair.x, sums[2 * k]), sums[2 * k + 1] = fmaf(weight, pair.y, sums[2 * k + 1]);
    }
  }
}

/// Row `index` of all, if it exists and has several chunks. A warp.
template <int kLatent>
__device__ __forceinline__ void merge_row(DenseDecodeParams const& params, int64_t index, int32_t lane) {
  RowSpan rows;
  if (!find_row(params, index, rows)) return;
  int32_t const kv_len = core::clamp_length(params.call.kv_len[rows.request], params.start.length_limit);
  int32_t const count = core::num_chunks(params.chunk_tokens, kv_len);
  if (count == 1) return;
  int64_t const first = chunk_row(params, rows, 0, rows.row_begin);
  ChunkCells const chunks{static_cast<uint4 const*>(params.partial_values) + first * kRowUnits<kLatent>,
                          reinterpret_cast<float2 const*>(params.partial_rows) + first * 2, count, params.chunk_rows};
  float2 const max_sum = sum_weights(chunks, lane);
  SharedItem const item{rows, 0, 1};
#pragma unroll
  for (int step = 0; step < kRowUnits<kLatent> / 32; ++step) {
    int32_t const unit = step * 32 + lane, half = kHalfUnits<kLatent> == 32 ? step : lane / kHalfUnits<kLatent>;
    UnitTarget const target = unit_target<kLatent>(params, item, unit);
    float sums[8] = {};
    add_chunks<kLatent>(sums, chunks, max_sum.x == -INFINITY ? 0.0F : max_sum.x, half, unit);
    float const factor = finish_row(params, item, target.row, max_sum, step == 0 && lane == 0);
#pragma unroll
    for (int k = 0; k < 4; ++k) store_pair(params, target.offset + 8 * k, make_float2(sums[2 * k] * factor, sums[2 * k + 1] * factor));
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
