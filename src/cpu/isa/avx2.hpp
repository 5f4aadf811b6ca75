// The vocabulary on AVX2 + FMA + F16C: 16 rows are two 8-lane vectors. See scalar.hpp for what each function means.
#pragma once

#include "cpu/isa/scalar.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace flashmla::cpu {

struct Avx2 {
  static constexpr bool kHasBf16Dot = false, kHasTiles = false, kHasTileFmaPair = false;
  static constexpr int kNarrowRowsBf16 = 12, kNarrowRowsFp16 = 12, kNarrowRowsFp32 = 8;

  struct Rows {
    __m256 low, high;
  };

  static Rows load(float const* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, Rows const& r) {
    _mm256_storeu_ps(p, r.low);
    _mm256_storeu_ps(p + 8, r.high);
  }
  static Rows set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Rows mul(Rows const& a, Rows const& b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static Rows add(Rows const& a, Rows const& b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static Rows sub(Rows const& a, Rows const& b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static Rows max(Rows const& a, Rows const& b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static Rows exp2(Rows const& x) { return {exp2_half(x.low), exp2_half(x.high)}; }
  static Rows mask_token(Rows const& x, int32_t const* limit, int32_t token) {
    return {mask_half(x.low, limit, token), mask_half(x.high, limit + 8, token)};
  }

  static void widen_bf16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
      __m256i const bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(in + i))), 16);
      _mm256_storeu_ps(out + i, _mm256_castsi256_ps(bits));
    }
    Scalar::widen_bf16(out + i, in + i, n - i);
  }
  static void widen_fp16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(in + i))));
    Scalar::widen_fp16(out + i, in + i, n - i);
  }
  static void narrow_bf16(uint16_t* out, float const* in, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
      __m256 const x = _mm256_loadu_ps(in + i);
      __m256i const bits = _mm256_castps_si256(x), top = _mm256_srli_epi32(bits, 16);
      __m256i const even = _mm256_add_epi32(_mm256_and_si256(top, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
      __m256i const quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40)), is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
      __m256i const rounded = _mm256_blendv_epi8(_mm256_srli_epi32(_mm256_add_epi32(bits, even), 16), quiet, is_nan);
      __m256i const packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_castsi256_si128(packed));
    }
    Scalar::narrow_bf16(out + i, in + i, n - i);
  }
  static void narrow_fp16(uint16_t* out, float const* in, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    Scalar::narrow_fp16(out + i, in + i, n - i);
  }
  static void accumulate(float* out, float const* in, float weight, int n) {
    __m256 const w = _mm256_set1_ps(weight);
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_fmadd_ps(w, _mm256_loadu_ps(in + i), _mm256_loadu_ps(out + i)));
    Scalar::accumulate(out + i, in + i, weight, n - i);
  }
  static void prefetch(void const* p) { _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T1); }
  static void transpose_words(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in) {
    for (int row = 0; row < 16; row += 8)
      for (int column = 0; column < 16; column += 8) transpose_8(out + column * out_words + row, out_words, in + row, column);
  }

  /// 16 registers hold 6 x 2 accumulators, two vectors of a and one broadcast: 16 = 6 + 5 + 5.
  static void tile_fma(float* c, float const* alpha, FmaOperands const& x) {
    strip_fma<6>(c, alpha, x, 0);
    strip_fma<5>(c, alpha, x, 6);
    strip_fma<5>(c, alpha, x, 11);
  }

  // ---- numbers of one token along the lanes ----------------------------------------------------------------------

  using Lanes = __m256;
  struct LanePair {
    Lanes first, second;
  };
  static constexpr int kLanes = 8;

  static Lanes load_lanes(float const* p) { return _mm256_loadu_ps(p); }
  static void store_lanes(float* p, Lanes x) { _mm256_storeu_ps(p, x); }
  static Lanes set_lanes(float x) { return _mm256_set1_ps(x); }
  static Lanes mul_lanes(Lanes a, Lanes b) { return _mm256_mul_ps(a, b); }
  static Lanes fma_lanes(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
  static void sums_of_8(float* out, Lanes const (&x)[8]) {
    __m256 const low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    __m256 const high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
  }
  static LanePair split_bf16(void const* p) {
    __m256i const words = _mm256_loadu_si256(static_cast<__m256i const*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))))};
  }
  static void join_bf16(float* out, LanePair const& x) {
    __m256 const low = _mm256_unpacklo_ps(x.first, x.second), high = _mm256_unpackhi_ps(x.first, x.second);
    _mm256_storeu_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
  static LanePair split_fp16(void const* p) {
    __m128i const* const halves = static_cast<__m128i const*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static void join_fp16(float* out, LanePair const& x) {
    _mm256_storeu_ps(out, x.first);
    _mm256_storeu_ps(out + 8, x.second);
  }

 private:
  static void transpose_8(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in, int column) {
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) a[i] = _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(in[i] + column)));
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {  // a[i + c]: columns c and 4 + c of rows i .. i + 3
      a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
      a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
      a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
      a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      _mm256_storeu_ps(reinterpret_cast<float*>(out + c * out_words), _mm256_permute2f128_ps(a[c], a[4 + c], 0x20));
      _mm256_storeu_ps(reinterpret_cast<float*>(out + (4 + c) * out_words), _mm256_permute2f128_ps(a[c], a[4 + c], 0x31));
    }
  }
  template <int kCount>
  static void strip_fma(float* c, float const* alpha, FmaOperands const& x, int first) {
    c += first * 16;
    __m256 low[kCount], high[kCount];
#pragma GCC unroll 6
    for (int n = 0; n < kCount; ++n) {
      low[n] = alpha == nullptr ? _mm256_setzero_ps() : _mm256_mul_ps(_mm256_loadu_ps(c + n * 16), _mm256_loadu_ps(alpha));
      high[n] = alpha == nullptr ? _mm256_setzero_ps() : _mm256_mul_ps(_mm256_loadu_ps(c + n * 16 + 8), _mm256_loadu_ps(alpha + 8));
    }
    ptrdiff_t const n_stride = x.n_stride, k_stride = x.k_stride;
    float const *a = x.a, *b = x.b + first * n_stride, *b3 = b + 3 * n_stride;
    for (int k = 0; k < x.num_k; ++k, a += 16, b += k_stride, b3 += k_stride) {
      __m256 const a_low = _mm256_loadu_ps(a), a_high = _mm256_loadu_ps(a + 8);
#pragma GCC unroll 6
      for (int n = 0; n < kCount; ++n) {
        __m256 const value = _mm256_broadcast_ss(n < 3 ? b + n * n_stride : b3 + (n - 3) * n_stride);
        low[n] = _mm256_fmadd_ps(a_low, value, low[n]);
        high[n] = _mm256_fmadd_ps(a_high, value, high[n]);
      }
    }
#pragma GCC unroll 6
    for (int n = 0; n < kCount; ++n) {
      _mm256_storeu_ps(c + n * 16, low[n]);
      _mm256_storeu_ps(c + n * 16 + 8, high[n]);
    }
  }
  static __m256 exp2_half(__m256 x) {
    __m256 const clamped = _mm256_max_ps(x, _mm256_set1_ps(-127.0f));
    __m256 const whole = _mm256_round_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 const f = _mm256_sub_ps(clamped, whole);
    __m256 p = _mm256_set1_ps(Scalar::kExp2[Scalar::kExp2Degree]);
    for (int k = Scalar::kExp2Degree - 1; k >= 0; --k) p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(Scalar::kExp2[k]));
    __m256i const exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(exponent));
  }
  static __m256 mask_half(__m256 x, int32_t const* limit, int32_t token) {
    __m256i const seen = _mm256_cmpgt_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(limit)), _mm256_set1_epi32(token));
    return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), x, _mm256_castsi256_ps(seen));
  }
};

}  // namespace flashmla::cpu

#pragma GCC pop_options
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using Avx2 = Scalar;
}  // namespace flashmla::cpu
#endif
