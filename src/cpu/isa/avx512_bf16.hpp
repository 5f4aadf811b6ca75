// The vocabulary on AVX-512 with BF16: BF16 caches are multiplied without being widened; the rest is AVX-512's. See
// scalar.hpp for what each function means.
//
// vdpbf16ps multiplies pairs of BF16 and adds both products to a float32 lane. It ignores MXCSR, flushes denormals and
// rounds to nearest even. Pairs of a key lie side by side in the cache, so the keys are used in place.
#pragma once

#include "cpu/isa/avx512f.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

namespace flashmla::cpu {

struct Avx512Bf16 : Avx512f {
  static constexpr bool kHasBf16Dot = true, kHasTiles = false;
  static constexpr int kNarrowRowsBf16 = 12;

  /// c[n][row] = alpha[row] * c[n][row] (zero without alpha) + sum over num_pairs p of a[p][row] . b(n, p): `a` is
  /// [num_pairs][16] BF16 pairs and the pair b(n, p) lies at keys.base + n * keys.bytes + 4 * p.
  static void tile_dot_keys(float* c, float const* alpha, uint16_t const* a, int num_pairs, Keys const& keys, NextKeys const& next) {
    __m512 acc[16];
    start_tile(acc, c, alpha);
    ptrdiff_t const n_bytes = keys.bytes;
    char const *b = keys.base, *b4 = b + 4 * n_bytes, *b8 = b4 + 4 * n_bytes, *b12 = b8 + 4 * n_bytes;
    for (int p = 0; p < num_pairs; ++p, a += 32, b += 4, b4 += 4, b8 += 4, b12 += 4) {
      __m512bh const rows = (__m512bh)_mm512_loadu_si512(a);
      if ((p & next.skip) == 0) prefetch(next.tokens[p & 15] + (p >> 4) * 64);
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
  /// The same for 32 columns; the second 16 go `second` numbers further on.
  static void interleave_two(NextColumns const& columns, ptrdiff_t second, int num_pairs) {
    __m512i const order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);  // unpacking takes the halves of each 16 bytes
    for (int p = 0; p < num_pairs; ++p) {
      __m512i const a = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(columns.tokens[2 * p] + columns.offset_bytes));
      __m512i const b = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(columns.tokens[2 * p + 1] + columns.offset_bytes));
      _mm512_storeu_si512(columns.out + 32 * p, _mm512_unpacklo_epi16(a, b));
      _mm512_storeu_si512(columns.out + second + 32 * p, _mm512_unpackhi_epi16(a, b));
    }
  }
  /// Two vectors of float32, rounded to BF16, as pairs.
  static void store_pairs(uint16_t* out, Rows first, Rows second) {
    __m512i const low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i const order = _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(16)), 16));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first)));
  }

  // Numbers of one token along the lanes, as pairs.

  using Pairs = __m512bh;
  struct PairPair {
    Pairs first, second;
  };
  static Pairs load_pairs(void const* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Pairs set_pairs(uint16_t const* p) { return pair_at(reinterpret_cast<char const*>(p)); }
  static Lanes dot_pairs(Lanes acc, Pairs a, Pairs b) { return _mm512_dpbf16_ps(acc, a, b); }
  /// 32 numbers of two tokens as {even token, odd token}; join_zipped puts what was computed with them into memory order.
  static PairPair zip(void const* even, void const* odd) {
    __m512i const a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
    return {(__m512bh)_mm512_unpacklo_epi16(a, b), (__m512bh)_mm512_unpackhi_epi16(a, b)};
  }
  static void join_zipped(float* out, LanePair const& x) {
    // Lanes of 4: first holds numbers 0-3, 8-11, 16-19, 24-27, second those between.
    __m512i const low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(x.first, low, x.second));
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(x.first, _mm512_add_epi32(low, _mm512_set1_epi32(8)), x.second));
  }
  /// 16 numbers, rounded to BF16.
  static void store_bf16(uint16_t* out, Rows x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), (__m256i)_mm512_cvtneps_pbh(x)); }

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
};

}  // namespace flashmla::cpu

#pragma GCC pop_options
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using Avx512Bf16 = Scalar;
}  // namespace flashmla::cpu
#endif
