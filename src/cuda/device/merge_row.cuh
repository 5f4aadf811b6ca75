// The arithmetic of merging partial results of one row, of the public merge and of decode.
//
// With partial results o_s (normalised) and l_s (log2 of the sum of exponentials; -inf = empty):
//     m = max l_s,  t = sum 2^(l_s - m),  w_s = 2^(l_s - m) / t,  out = sum w_s o_s,  lse_log2 = m + log2 t.
// A sink multiplies out by 2^lse / (2^lse + 2^sink) and leaves lse alone. All empty: out 0, lse by option.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace flashmla::cuda::device {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;
inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ inline float minus_infinity() { return __int_as_float(static_cast<int>(0xff800000u)); }

/// What a row's partial lse values say; the same in every lane after `combine_across_warp`.
struct RowSum {
  float max_log2;  // -inf: nothing so far
  float total;     // sum of 2^(l - max_log2)
};

__device__ inline RowSum empty_row_sum() { return {minus_infinity(), 0.0f}; }
__device__ inline bool is_empty(RowSum const& row) { return row.max_log2 == minus_infinity(); }

/// The sum of both, in the order given. Exact for an empty side, so that -inf - -inf never arises.
__device__ inline RowSum combine(RowSum const& a, RowSum const& b) {
  if (is_empty(a)) return b;
  if (is_empty(b)) return a;
  float const m = fmaxf(a.max_log2, b.max_log2);
  return {m, a.total * exp2f(a.max_log2 - m) + b.total * exp2f(b.max_log2 - m)};
}

__device__ inline RowSum row_sum_of(float lse_log2) { return {lse_log2, lse_log2 == minus_infinity() ? 0.0f : 1.0f}; }

/// Butterfly over the warp: every lane gets the same bits, because combine is commutative.
__device__ inline RowSum combine_across_warp(RowSum row) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    RowSum const other{__shfl_xor_sync(kFullWarp, row.max_log2, step), __shfl_xor_sync(kFullWarp, row.total, step)};
    row = combine(row, other);
  }
  return row;
}

__device__ inline float lse_log2_of(RowSum const& row) { return row.max_log2 + log2f(row.total); }

/// Factor of a part's values: w_s times `scale`; 0 for an empty part.
__device__ inline float part_weight(RowSum const& row, float lse_log2, float scale) {
  return lse_log2 == minus_infinity() ? 0.0f : exp2f(lse_log2 - row.max_log2) * scale;
}

/// 2^lse / (2^lse + 2^sink) of a row that is not empty; `sink` is in natural units. +inf gives 0, -inf gives 1.
__device__ inline float sink_factor(float sink, float lse_log2) { return 1.0f / (1.0f + exp2f(sink * kLog2E - lse_log2)); }

/// acc += w * v, except that an empty part's values (which may be NaN) never count.
__device__ inline void accumulate(float4& acc, float4 const& v, float w, bool counts) {
  if (!counts) return;
  acc.x = fmaf(w, v.x, acc.x);
  acc.y = fmaf(w, v.y, acc.y);
  acc.z = fmaf(w, v.z, acc.z);
  acc.w = fmaf(w, v.w, acc.w);
}

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
  return v;
}
template <>
__device__ inline __half from_float<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

/// Four consecutive numbers to memory of any alignment; one store where the address allows it.
template <class T>
__device__ inline void store_quad(T* to, float4 const& from) {
  Quad<T> const quad{{from_float<T>(from.x), from_float<T>(from.y), from_float<T>(from.z), from_float<T>(from.w)}};
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Quad<T>) == 0) {
    *reinterpret_cast<Quad<T>*>(to) = quad;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = quad.v[i];
  }
}

/// Four consecutive numbers from memory of any alignment.
template <class T>
__device__ inline float4 load_quad(T const* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(Quad<T>) == 0) {
    Quad<T> const quad = *reinterpret_cast<Quad<T> const*>(from);
    return {to_float(quad.v[0]), to_float(quad.v[1]), to_float(quad.v[2]), to_float(quad.v[3])};
  }
  return {to_float(from[0]), to_float(from[1]), to_float(from[2]), to_float(from[3])};
}

}  // namespace flashmla::cuda::device
