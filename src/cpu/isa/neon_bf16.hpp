// The vocabulary on AArch64 with FEAT_BF16: BF16 caches are multiplied without being widened; the rest is NEON's. See
// scalar.hpp and avx512_bf16.hpp for what each function means.
//
// bfdot multiplies pairs of BF16 and adds both products to a float32 lane, like vdpbf16ps; it flushes denormals and may
// round the sum of the products to odd. A pair of the second operand can be chosen by lane, which broadcasts it for free.
#pragma once

#include "cpu/isa/neon.hpp"

#if defined(__aarch64__)
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+bf16")

namespace flashmla::cpu {

struct NeonBf16 : Neon {
  static constexpr bool kHasBf16Dot = true, kHasTiles = false;

  static void tile_dot_keys(float* c, float const* alpha, uint16_t const* a, int num_pairs, Keys const& keys, NextKeys const& next) {
    for (int n = 0; n < 16; n += 4, c += 64) {
      float32x4_t acc[4][4];
      start_strip(acc, c, alpha);
      char const* const b = keys.base + n * keys.bytes;
      int p = 0;
      for (; p + 4 <= num_pairs; p += 4) {
        if (n == 0) prefetch_some(next, p);
        bfloat16x8_t key[4];  // four pairs of each of four keys
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) key[i] = load_pairs(b + i * keys.bytes + 4 * p);
        add_pair<0>(acc, a + 32 * p, key);
        add_pair<1>(acc, a + 32 * p + 32, key);
        add_pair<2>(acc, a + 32 * p + 64, key);
        add_pair<3>(acc, a + 32 * p + 96, key);
      }
      for (; p < num_pairs; ++p) {
        bfloat16x8_t key[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) key[i] = pair_at(b + i * keys.bytes + 4 * p);
        add_pair<0>(acc, a + 32 * p, key);
      }
      finish_strip(c, acc);
    }
  }
  template <bool kAhead>
  static void tile_dot_values(float* c, float const* alpha, uint16_t const* a, int num_pairs, uint16_t const* b, NextColumns const& next) {
    for (int n = 0; n < 16; n += 4, c += 64) {
      float32x4_t acc[4][4];
      start_strip(acc, c, alpha);
      for (int p = 0; p < num_pairs; ++p) {
        if constexpr (kAhead) {
          if (n == 0 && (p & 1) == 0) prefetch(next.soon[2 * p] + next.soon_bytes);
          if (n == 0) interleave_pair(next, p);
        }
        bfloat16x8_t const columns = load_pairs(b + 32 * p + 2 * n);
        Pairs rows[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) rows[j] = load_pairs(a + 32 * p + 8 * j);
        add_column<0>(acc, rows, columns);
        add_column<1>(acc, rows, columns);
        add_column<2>(acc, rows, columns);
        add_column<3>(acc, rows, columns);
      }
      finish_strip(c, acc);
    }
  }
  static void interleave(NextColumns const& columns, int num_pairs) {
    for (int p = 0; p < num_pairs; ++p) interleave_pair(columns, p);
  }
  static void store_pairs(uint16_t* out, Rows const& first, Rows const& second) {
    for (int i = 0; i < 4; ++i) vst2_u16(out + 8 * i, {{rounded(first.part[i]), rounded(second.part[i])}});
  }

  // Numbers of one token along the lanes, as pairs.

  using Pairs = bfloat16x8_t;
  struct PairPair {
    Pairs first, second;
  };
  static Pairs load_pairs(void const* p) { return vreinterpretq_bf16_u16(vld1q_u16(static_cast<uint16_t const*>(p))); }
  static Pairs set_pairs(uint16_t const* p) { return pair_at(p); }
  static Lanes dot_pairs(Lanes acc, Pairs a, Pairs b) { return vbfdotq_f32(acc, a, b); }
  static PairPair zip(void const* even, void const* odd) {
    uint16x8_t const a = vld1q_u16(static_cast<uint16_t const*>(even)), b = vld1q_u16(static_cast<uint16_t const*>(odd));
    return {vreinterpretq_bf16_u16(vzip1q_u16(a, b)), vreinterpretq_bf16_u16(vzip2q_u16(a, b))};
  }
  static void join_zipped(float* out, LanePair const& x) { join_bf16(out, x); }
  static void store_bf16(uint16_t* out, Rows const& x) {
    for (int i = 0; i < 4; ++i) vst1_u16(out + 4 * i, rounded(x.part[i]));
  }

 private:
  static uint16x4_t rounded(float32x4_t x) { return vreinterpret_u16_bf16(vcvt_bf16_f32(x)); }
  static Pairs pair_at(void const* p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return vreinterpretq_bf16_u32(vdupq_n_u32(pair));
  }
  static void prefetch_some(NextKeys const& next, int first_pair) {
    for (int p = first_pair; p < first_pair + 4; ++p)
      if ((p & next.skip) == 0) prefetch(next.tokens[p & 15] + (p >> 4) * 64);
  }
  static void interleave_pair(NextColumns const& columns, int p) {
    char const *const even = columns.tokens[2 * p] + columns.offset_bytes, *const odd = columns.tokens[2 * p + 1] + columns.offset_bytes;
    for (int half = 0; half < 2; ++half) {
      PairPair const pairs = zip(even + 16 * half, odd + 16 * half);
      vst1q_u16(columns.out + 32 * p + 16 * half, vreinterpretq_u16_bf16(pairs.first));
      vst1q_u16(columns.out + 32 * p + 16 * half + 8, vreinterpretq_u16_bf16(pairs.second));
    }
  }
  /// acc[i] += rows at a . pair kPair of key[i]
  template <int kPair>
  static void add_pair(float32x4_t (&acc)[4][4], uint16_t const* a, Pairs const (&key)[4]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Pairs const rows = load_pairs(a + 8 * j);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) acc[i][j] = vbfdotq_laneq_f32(acc[i][j], rows, key[i], kPair);
    }
  }
  /// acc[kColumn] += rows . pair kColumn
  template <int kColumn>
  static void add_column(float32x4_t (&acc)[4][4], Pairs const (&rows)[4], Pairs columns) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[kColumn][j] = vbfdotq_laneq_f32(acc[kColumn][j], rows[j], columns, kColumn);
  }
};

}  // namespace flashmla::cpu

#pragma GCC pop_options
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using NeonBf16 = Scalar;
}  // namespace flashmla::cpu
#endif
