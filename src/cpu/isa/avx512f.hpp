// The vocabulary on AVX-512 (F, BW, VL, DQ): 16 rows are one vector, and all arithmetic is float32. See scalar.hpp for what
// each function means.
#pragma once

#include "cpu/isa/scalar.hpp"

#if defined(__x86_64__)
// GCC 12's own intrinsics read an undefined vector on purpose and warn about it where they are inlined (GCC PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")

namespace flashmla::cpu {

struct Avx512f {
  static constexpr bool kHasBf16Dot = false, kHasTiles = false, kHasTileFmaPair = true;
  static constexpr int kNarrowRowsBf16 = 11, kNarrowRowsFp16 = 11, kNarrowRowsFp32 = 8;

  using Rows = __m512;

  static Rows load(float const* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Rows r) { _mm512_storeu_ps(p, r); }
  static Rows set1(float x) { return _mm512_set1_ps(x); }
  static Rows mul(Rows a, Rows b) { return _mm512_mul_ps(a, b); }
  static Rows add(Rows a, Rows b) { return _mm512_add_ps(a, b); }
  static Rows sub(Rows a, Rows b) { return _mm512_sub_ps(a, b); }
  static Rows max(Rows a, Rows b) { return _mm512_max_ps(a, b); }
  /// 2^f for f in [0, 1) to 1e-7, exact at 0, and its exponent: this set splits off and puts on exponents in one instruction each.
  /// What would be denormal is 0, since a denormal result costs as much as a hundred others.
  static Rows exp2(Rows x) {
    constexpr float kPowers[] = {1.0f, 0.6931513f, 0.24016444f, 0.055799913f, 0.009017029f, 0.0018671307f};
    __m512 const f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(kPowers[5]);
    for (int k = 4; k >= 0; --k) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPowers[k]));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p, x);
  }
  static Rows mask_token(Rows x, int32_t const* limit, int32_t token) {
    __mmask16 const seen = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(limit), _mm512_set1_epi32(token));
    return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-__builtin_inff()), x);
  }

  static void widen_bf16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) {
      __m512i const bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(in + i))), 16);
      _mm512_storeu_ps(out + i, _mm512_castsi512_ps(bits));
    }
    Scalar::widen_bf16(out + i, in + i, n - i);
  }
  static void widen_fp16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(in + i))));
    Scalar::widen_fp16(out + i, in + i, n - i);
  }
  static void narrow_bf16(uint16_t* out, float const* in, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) {
      __m512 const x = _mm512_loadu_ps(in + i);
      __m512i const bits = _mm512_castps_si512(x), top = _mm512_srli_epi32(bits, 16);
      __m512i const even = _mm512_add_epi32(_mm512_and_si512(top, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
      __m512i const quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
      __m512i const rounded =
          _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_srli_epi32(_mm512_add_epi32(bits, even), 16), quiet);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm512_cvtepi32_epi16(rounded));
    }
    Scalar::narrow_bf16(out + i, in + i, n - i);
  }
  static void narrow_fp16(uint16_t* out, float const* in, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    Scalar::narrow_fp16(out + i, in + i, n - i);
  }
  static void accumulate(float* out, float const* in, float weight, int n) {
    __m512 const w = _mm512_set1_ps(weight);
    int i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, _mm512_fmadd_ps(w, _mm512_loadu_ps(in + i), _mm512_loadu_ps(out + i)));
    Scalar::accumulate(out + i, in + i, weight, n - i);
  }
  static void prefetch(void const* p) { _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T1); }
  static void transpose_words(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in[i]);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // a[i + c]: column 4 * lane + c of rows i .. i + 3
      a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      __m512i const low_even = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), low_odd = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
      __m512i const high_even = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88), high_odd = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
      _mm512_storeu_si512(out + c * out_words, _mm512_shuffle_i32x4(low_even, high_even, 0x88));
      _mm512_storeu_si512(out + (4 + c) * out_words, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
      _mm512_storeu_si512(out + (8 + c) * out_words, _mm512_shuffle_i32x4(low_even, high_even, 0xdd));
      _mm512_storeu_si512(out + (12 + c) * out_words, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd));
    }
  }

  static void tile_fma(float* c, float const* alpha, FmaOperands const& x) {
    __m512 acc[16];
    start_tile(acc, c, alpha);
    ptrdiff_t const n_stride = x.n_stride, k_stride = x.k_stride;
    float const *a = x.a, *b = x.b, *b4 = b + 4 * n_stride, *b8 = b4 + 4 * n_stride, *b12 = b8 + 4 * n_stride;
    for (int k = 0; k < x.num_k; ++k, a += 16, b += k_stride, b4 += k_stride, b8 += k_stride, b12 += k_stride) {
      __m512 const rows = _mm512_loadu_ps(a);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        acc[n] = _mm512_fmadd_ps(rows, _mm512_set1_ps(b[n * n_stride]), acc[n]);
        acc[4 + n] = _mm512_fmadd_ps(rows, _mm512_set1_ps(b4[n * n_stride]), acc[4 + n]);
        acc[8 + n] = _mm512_fmadd_ps(rows, _mm512_set1_ps(b8[n * n_stride]), acc[8 + n]);
        acc[12 + n] = _mm512_fmadd_ps(rows, _mm512_set1_ps(b12[n * n_stride]), acc[12 + n]);
      }
    }
    finish_tile(c, acc);
  }
  /// tile_fma of two blocks, alpha [2][16]: a broadcast serves both, so that 16 products take 10 loads, not 17.
  static void tile_fma_pair(float* c, float const* alpha, FmaOperands const& x, SecondBlock const& second) {
    half_fma_pair(c, alpha, x, second);
    FmaOperands right = x;
    right.b += 8 * x.n_stride;
    half_fma_pair(c + 128, alpha, right, second);
  }

  // ---- numbers of one token along the lanes ----------------------------------------------------------------------

  using Lanes = __m512;
  struct LanePair {
    Lanes first, second;
  };
  static constexpr int kLanes = 16;

  static Lanes load_lanes(float const* p) { return _mm512_loadu_ps(p); }
  static void store_lanes(float* p, Lanes x) { _mm512_storeu_ps(p, x); }
  static Lanes set_lanes(float x) { return _mm512_set1_ps(x); }
  static Lanes mul_lanes(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
  static Lanes fma_lanes(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
  static void sums_of_8(float* out, Lanes const (&x)[8]) {
    __m256 half[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) half[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
    __m256 const low = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    __m256 const high = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
  }
  static LanePair split_bf16(void const* p) {
    __m512i const words = _mm512_loadu_si512(p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))))};
  }
  static void join_bf16(float* out, LanePair const& x) {
    __m512i const low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(x.first, low, x.second));
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(x.first, _mm512_add_epi32(low, _mm512_set1_epi32(8)), x.second));
  }
  static LanePair split_fp16(void const* p) {
    __m256i const* const halves = static_cast<__m256i const*>(p);
    return {_mm512_cvtph_ps(_mm256_loadu_si256(halves)), _mm512_cvtph_ps(_mm256_loadu_si256(halves + 1))};
  }
  static void join_fp16(float* out, LanePair const& x) {
    _mm512_storeu_ps(out, x.first);
    _mm512_storeu_ps(out + 16, x.second);
  }

 private:
  /// 8 of the 16 numbers n. A function of its own, since GCC spills a row in the loop once it is inlined twice.
  [[gnu::noinline]] static void half_fma_pair(float* c, float const* alpha, FmaOperands const& x, SecondBlock const& second) {
    __m512 low[8], high[8];
    float* const c_high = c + second.c;
    start_half(low, c, alpha);
    start_half(high, c_high, alpha == nullptr ? nullptr : alpha + 16);
    ptrdiff_t const n_stride = x.n_stride, k_stride = x.k_stride;
    float const *a = x.a, *a_high = a + second.a, *b = x.b, *b4 = b + 4 * n_stride;
    for (int k = 0; k < x.num_k; ++k, a += 16, a_high += 16, b += k_stride, b4 += k_stride) {
      __m512 const rows_low = _mm512_loadu_ps(a), rows_high = _mm512_loadu_ps(a_high);
#pragma GCC unroll 8
      for (int n = 0; n < 8; ++n) {
        __m512 const value = _mm512_set1_ps(n < 4 ? b[n * n_stride] : b4[(n - 4) * n_stride]);
        low[n] = _mm512_fmadd_ps(rows_low, value, low[n]);
        high[n] = _mm512_fmadd_ps(rows_high, value, high[n]);
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < 8; ++n) {
      _mm512_storeu_ps(c + n * 16, low[n]);
      _mm512_storeu_ps(c_high + n * 16, high[n]);
    }
  }
  static void start_half(__m512 (&acc)[8], float const* c, float const* alpha) {
    if (alpha == nullptr) {
#pragma GCC unroll 8
      for (int n = 0; n < 8; ++n) acc[n] = _mm512_setzero_ps();
    } else {
      __m512 const factor = _mm512_loadu_ps(alpha);
#pragma GCC unroll 8
      for (int n = 0; n < 8; ++n) acc[n] = _mm512_mul_ps(factor, _mm512_loadu_ps(c + n * 16));
    }
  }

 protected:
  static void start_tile(__m512 (&acc)[16], float const* c, float const* alpha) {
    if (alpha == nullptr) {
#pragma GCC unroll 16
      for (int n = 0; n < 16; ++n) acc[n] = _mm512_setzero_ps();
    } else {
      __m512 const factor = _mm512_loadu_ps(alpha);
#pragma GCC unroll 16
      for (int n = 0; n < 16; ++n) acc[n] = _mm512_mul_ps(factor, _mm512_loadu_ps(c + n * 16));
    }
  }
  static void finish_tile(float* c, __m512 const (&acc)[16]) {
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) _mm512_storeu_ps(c + n * 16, acc[n]);
  }
};

}  // namespace flashmla::cpu

#pragma GCC pop_options
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using Avx512f = Scalar;
}  // namespace flashmla::cpu
#endif
