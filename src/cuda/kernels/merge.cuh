// The public merge: partial results of any origin into one, on views of any stride.
//
// Math: device/merge_row.cuh; a part with lse +inf or -inf is empty. Reference: src/reference/merge.cpp.
// Roles: one warp a row (token, head); 8 rows a CTA; a lane takes 4 columns at a time.
// Timeline: row sum over the parts -> for each 4 columns, all parts in order -> store.
// Shared memory: none.
// Barriers: none.
// Registers: no constraint.
// Limits: none on parts, rows and columns.
#pragma once

#include <cstdint>

#include "core/calls.hpp"
#include "cuda/device/merge_row.cuh"

namespace flashmla::cuda::merge {

inline constexpr int kThreads = 256;
inline constexpr int kRowsPerCta = kThreads / 32;

/// Factors between the caller's lse and log2 units.
struct LseUnits {
  float to_log2;
  float from_log2;
  float empty;  // the caller's, of an empty row
};

__device__ inline float part_lse_log2(core::MergeCall const& call, LseUnits const& units, int64_t part, int64_t token, int64_t head) {
  int64_t const* const stride = call.partial_lse_stride;
  float const lse = call.partial_lse[part * stride[0] + token * stride[1] + head * stride[2]];
  return isinf(lse) ? device::minus_infinity() : lse * units.to_log2;
}

__device__ inline device::RowSum sum_row(core::MergeCall const& call, LseUnits const& units, int64_t token, int64_t head) {
  device::RowSum sum = device::empty_row_sum();
  for (int64_t part = threadIdx.x % 32; part < call.num_parts; part += 32)
    sum = device::combine(sum, device::row_sum_of(part_lse_log2(call, units, part, token, head)));
  return device::combine_across_warp(sum);
}

/// Columns column .. column + 3 of a row, of which the first `count` exist.
template <class Partial>
__device__ inline float4 load_columns(Partial const* from, int64_t count) {
  if (count >= 4) return device::load_quad(from);
  return {device::to_float(from[0]), count > 1 ? device::to_float(from[1]) : 0.0f, count > 2 ? device::to_float(from[2]) : 0.0f, 0.0f};
}

template <class Out>
__device__ inline void store_columns(Out* to, float4 const& values, int64_t count) {
  if (count >= 4) {
    device::store_quad(to, values);
    return;
  }
  to[0] = device::from_float<Out>(values.x);
  if (count > 1) to[1] = device::from_float<Out>(values.y);
  if (count > 2) to[2] = device::from_float<Out>(values.z);
}

template <class Partial, class Out>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(core::MergeCall const __grid_constant__ call, LseUnits const __grid_constant__ units) {
  cudaGridDependencySynchronize();
  int64_t const row = static_cast<int64_t>(blockIdx.x) * kRowsPerCta + threadIdx.x / 32;
  if (row >= call.tokens * call.heads) return;
  int64_t const token = row / call.heads, head = row % call.heads;
  auto const* const partial = static_cast<Partial const*>(call.partial_out) + token * call.partial_out_stride[1] +
                              head * call.partial_out_stride[2];                                          // [v_dim] of part 0
  Out* const out = static_cast<Out*>(call.out) + token * call.out_stride[0] + head * call.out_stride[1];  // [v_dim]

  device::RowSum const sum = sum_row(call, units, token, head);
  bool const is_empty = device::is_empty(sum);
  float const lse_log2 = is_empty ? 0.0f : device::lse_log2_of(sum);
  float scale = is_empty ? 0.0f : 1.0f / sum.total;
  if (call.sink != nullptr && !is_empty) scale *= device::sink_factor(call.sink[head], lse_log2);

  int const lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t column = 4 * lane; column < call.v_dim; column += 128) {
    float4 acc{};
    for (int64_t part = 0; part < call.num_parts; ++part) {
      float const part_lse = part_lse_log2(call, units, part, token, head);
      if (part_lse == device::minus_infinity()) continue;
      float4 const values = load_columns(partial + part * call.partial_out_stride[0] + column, call.v_dim - column);
      device::accumulate(acc, values, device::part_weight(sum, part_lse, scale), true);
    }
    store_columns(out + column, acc, call.v_dim - column);
  }
  if (lane == 0 && call.lse != nullptr)
    call.lse[token * call.lse_stride[0] + head * call.lse_stride[1]] = is_empty ? units.empty : lse_log2 * units.from_log2;
}

}  // namespace flashmla::cuda::merge
