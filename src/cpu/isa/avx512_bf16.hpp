// The vocabulary on AVX-512 with BF16: 16 rows are one vector, and BF16 caches are multiplied without being widened.
// See scalar.hpp for what each function means.
//
// vdpbf16ps multiplies pairs of BF16 and adds both products to a float32 lane. It ignores MXCSR, flushes denormals and
// rounds to nearest even. Pairs of a key lie side by side in the cache, so the keys are used in place.
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
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

namespace flashmla::cpu {

struct Avx512Bf16 {
  /// 16 columns of a tile's values, to be paired up over tokens.
  struct NextColumns {
    char const* const* tokens;  // [2 * num_pairs] -> [v_dim]
    ptrdiff_t offset_bytes;     // of the first of the 16 columns
    uint16_t* out;              // [num_pairs][16][2]
    char const* const* soon;    // every fourth of [2 * num_pairs] is prefetched at soon_bytes
    ptrdiff_t soon_bytes;
  };
  /// 16 keys, `bytes` apart.
  struct Keys {
    char const* base;
    ptrdiff_t bytes;
  };
  /// What tile_dot_keys prefetches: 16 tokens `bytes` apart, line after line of each, at most one a pair.
  struct NextKeys {
    char const* base;
    ptrdiff_t bytes;
    int skip;  // tokens t with (t & skip) == 0 only
  };

  static constexpr bool kHasBf16Dot = true;

  using Rows = __m512;

  static Rows load(float const* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Rows r) { _mm512_storeu_ps(p, r); }
  static Rows set1(float x) { return _mm512_set1_ps(x); }
  static Rows mul(Rows a, Rows b) { return _mm512_mul_ps(a, b); }
  static Rows add(Rows a, Rows b) { return _mm512_add_ps(a, b); }
  static Rows sub(Rows a, Rows b) { return _mm512_sub_ps(a, b); }
  static Rows max(Rows a, Rows b) { return _mm512_max_ps(a, b); }
  static Rows exp2(Rows x) {
    __m512 const clamped = _mm512_max_ps(x, _mm512_set1_ps(-127.0f));
    __m512 const whole = _mm512_roundscale_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 const f = _mm512_sub_ps(clamped, whole);
    __m512 p = _mm512_set1_ps(Scalar::kExp2[5]);
    for (int k = 4; k >= 0; --k) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(Scalar::kExp2[k]));
    __m512i const exponent = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127)), 23);
    return _mm512_mul_ps(p, _mm512_castsi512_ps(exponent));
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
  static void narrow_bf16(uint16_t* out, float const* in, int n) { Scalar::narrow_bf16(out, in, n); }
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

  // ---- what only a set with a BF16 dot product has --------------------------------------------------------------

  /// c[n][row] = alpha[row] * c[n][row] (zero without alpha) + sum over num_pairs p of a[p][row] . b(n, p): `a` is
  /// [num_pairs][16] BF16 pairs and the pair b(n, p) lies at keys.base + n * keys.bytes + 4 * p.
  static void tile_dot_keys(float* c, float const* alpha, uint16_t const* a, int num_pairs, Keys const& keys, NextKeys const& next) {
    __m512 acc[16];
    start_tile(acc, c, alpha);
    ptrdiff_t const n_bytes = keys.bytes;
    char const *b = keys.base, *b4 = b + 4 * n_bytes, *b8 = b4 + 4 * n_bytes, *b12 = b8 + 4 * n_bytes;
    for (int p = 0; p < num_pairs; ++p, a += 32, b += 4, b4 += 4, b8 += 4, b12 += 4) {
      __m512bh const rows = (__m512bh)_mm512_loadu_si512(a);
      if ((p & next.skip) == 0) prefetch(next.base + (p & 15) * next.bytes + (p >> 4) * 64);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        acc[n] = _mm512_dpbf16_ps(acc[n], rows, pair_at(b + n * n_bytes));
        acc[4 + n] = _mm512_dpbf16_ps(acc[4 + n], rows, pair_at(b4 + n * n_bytes));
        acc[8 + n] = _mm512_dpbf16_ps(acc[8 + n], rows, pair_at(b8 + n * n_bytes));
        acc[12 + n] = _mm512_dpbf16_ps(acc[12 + n], rows, pair_at(b12 + n * n_bytes));
      }
    }
    finish_tile(c, acc);
  }
  /// The same for values: b(n, p) lies at b + 64 * p + 4 * n, one line for the 16 columns of a pair of tokens. With
  /// kAhead the columns that come next are paired up meanwhile, at one shuffle for 16 products, which hides it.
  template <bool kAhead>
  static void tile_dot_values(float* c, float const* alpha, uint16_t const* a, int num_pairs, uint16_t const* b, NextColumns const& next) {
    __m512 acc[16];
    start_tile(acc, c, alpha);
    __m512i const order = interleaved_order();
    for (int p = 0; p < num_pairs; ++p, a += 32, b += 32) {
      __m512bh const rows = (__m512bh)_mm512_loadu_si512(a);
      if (kAhead && (p & 1) == 0) prefetch(next.soon[2 * p] + next.soon_bytes);
      if constexpr (kAhead)
        store_interleaved(next.out + 32 * p, next.tokens[2 * p] + next.offset_bytes, next.tokens[2 * p + 1] + next.offset_bytes, order);
#pragma GCC unroll 16
      for (int n = 0; n < 16; ++n) acc[n] = _mm512_dpbf16_ps(acc[n], rows, pair_at(reinterpret_cast<char const*>(b + 2 * n)));
    }
    finish_tile(c, acc);
  }
  /// out[p][i] = {token 2p, token 2p + 1} at number i of 16: a column strip becomes pairs over tokens.
  static void interleave(NextColumns const& columns, int num_pairs) {
    __m512i const order = interleaved_order();
    for (int p = 0; p < num_pairs; ++p)
      store_interleaved(columns.out + 32 * p, columns.tokens[2 * p] + columns.offset_bytes,
                        columns.tokens[2 * p + 1] + columns.offset_bytes, order);
  }
  /// Two vectors of float32, rounded to BF16, as pairs.
  static void store_pairs(uint16_t* out, Rows first, Rows second) {
    __m512i const low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
    __m512i const high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
    _mm512_storeu_si512(out, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }

 private:
  static __m512i interleaved_order() {
    __m512i const low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(32)), 16));
  }
  static void store_interleaved(uint16_t* out, char const* first, char const* second, __m512i order) {
    __m512i const low = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(first)));
    __m512i const high = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(second)));
    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(low, order, high));
  }
  static __m512bh pair_at(char const* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
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
struct Avx512Bf16 : Scalar {};
}  // namespace flashmla::cpu
#endif
