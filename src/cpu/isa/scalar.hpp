// The vocabulary of an instruction set, in its portable form: what src/cpu/generic is written in.
//
// `Rows` holds one number for each of the 16 rows (query heads) of a block: heads lie along the SIMD lanes, so that a
// softmax over tokens never reduces across lanes. Every set has the same functions; this one uses plain 4-wide vectors
// that any target has, and no fused multiply-add. A *tile* is 16 x 16 float32, c[n][row].
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace flashmla::cpu {

// What sets with products of BF16 pairs work on.

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
/// What tile_dot_keys prefetches: line after line of 16 tokens, at most one a pair.
struct NextKeys {
  char const* const* tokens;  // [16]
  int skip;                   // tokens t with (t & skip) == 0 only
};

/// Operands of a tile product: a is [num_k][16], b(n, k) lies at b[n * n_stride + k * k_stride].
struct FmaOperands {
  float const* a;
  int num_k;
  float const* b;
  ptrdiff_t n_stride, k_stride;
};
/// How far the second of two blocks of rows lies behind the first, in floats.
struct SecondBlock {
  ptrdiff_t c, a;
};

struct Scalar {
  static constexpr bool kHasBf16Dot = false, kHasTiles = false;
  static constexpr bool kHasTileFmaPair = false;  // tile_fma_pair: two blocks at once, where one broadcast a product would be the limit
  /// Most rows for which the narrow kernel wins; tests/cpu/narrow_or_wide.cpp measures it, docs/perf has the figures.
  static constexpr int kNarrowRowsBf16 = 14, kNarrowRowsFp16 = 10, kNarrowRowsFp32 = 10;

  typedef float Quad __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  struct Rows {
    Quad part[4];
  };

  static Rows load(float const* p) {  // [16]
    Rows r;
    memcpy(&r, p, sizeof r);
    return r;
  }
  static void store(float* p, Rows const& r) { memcpy(p, &r, sizeof r); }  // [16]
  static Rows set1(float x) {
    Quad const q = {x, x, x, x};
    return {{q, q, q, q}};
  }
  static Rows mul(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = a.part[i] * b.part[i];
    return r;
  }
  static Rows add(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = a.part[i] + b.part[i];
    return r;
  }
  static Rows sub(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = a.part[i] - b.part[i];
    return r;
  }
  static Rows max(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return r;
  }
  /// 2^x for x <= 0, exactly 0 below -126.5 and 1 at 0; relative error 2e-7. A polynomial of the fraction in [-1/2, 1/2], then the
  /// whole part into the exponent.
  static Rows exp2(Rows const& x) {
    alignas(16) float in[16], out[16];
    store(in, x);
    for (int i = 0; i < 16; ++i) {
      float const clamped = in[i] > -127.0f ? in[i] : -127.0f;
      float const whole = (clamped + kRoundToInteger) - kRoundToInteger;
      float const f = clamped - whole;
      float p = kExp2[kExp2Degree];
      for (int k = kExp2Degree - 1; k >= 0; --k) p = p * f + kExp2[k];
      uint32_t const bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
      float power;
      memcpy(&power, &bits, sizeof power);
      out[i] = p * power;
    }
    return load(out);
  }
  /// Rows that do not see `token` become -inf.
  static Rows mask_token(Rows const& x, int32_t const* limit, int32_t token) {  // limit [16]
    alignas(16) float value[16];
    store(value, x);
    for (int i = 0; i < 16; ++i) value[i] = token < limit[i] ? value[i] : -__builtin_inff();
    return load(value);
  }

  static void widen_bf16(float* out, uint16_t const* in, int n) {
    for (int i = 0; i < n; ++i) {
      uint32_t const bits = static_cast<uint32_t>(in[i]) << 16;
      memcpy(out + i, &bits, sizeof bits);
    }
  }
  static void widen_fp16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4) store_lanes(out + i, from_fp16_words(Words{in[i], in[i + 1], in[i + 2], in[i + 3]}));
    for (; i < n; ++i) out[i] = from_fp16(in[i]);
  }
  static void narrow_bf16(uint16_t* out, float const* in, int n) {
    for (int i = 0; i < n; ++i) out[i] = to_bf16(in[i]);
  }
  static void narrow_fp16(uint16_t* out, float const* in, int n) {
    for (int i = 0; i < n; ++i) out[i] = to_fp16(in[i]);
  }
  /// out[i] += weight * in[i]
  static void accumulate(float* out, float const* in, float weight, int n) {
    for (int i = 0; i < n; ++i) out[i] += weight * in[i];
  }
  static void prefetch(void const* p) { __builtin_prefetch(p, 0, 2); }
  /// A 16 x 16 matrix of words turned over: out[j][i] = in[i][j], rows of `out` out_words apart.
  static void transpose_words(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in) {  // in [16] -> [16]
    for (int i = 0; i < 16; ++i) {
      uint32_t row[16];
      memcpy(row, in[i], sizeof row);
      for (int j = 0; j < 16; ++j) out[j * out_words + i] = row[j];
    }
  }

  /// c[n][row] = c[n][row] * alpha[row] + sum over k of a[k][row] * b(n, k); without alpha, c starts from zero.
  static void tile_fma(float* c, float const* alpha, FmaOperands const& x) {
    for (int n = 0; n < 16; n += 2) {
      Quad acc[2][4] = {};
      for (int i = 0; i < 2 && alpha != nullptr; ++i) {
        Rows const scaled = mul(load(c + (n + i) * 16), load(alpha));
        for (int j = 0; j < 4; ++j) acc[i][j] = scaled.part[j];
      }
      float const* b0 = x.b + n * x.n_stride;
      float const* b1 = b0 + x.n_stride;
      for (int k = 0; k < x.num_k; ++k, b0 += x.k_stride, b1 += x.k_stride) {
        for (int j = 0; j < 4; ++j) {
          Quad q;
          memcpy(&q, x.a + k * 16 + j * 4, sizeof q);
          acc[0][j] += q * *b0;
          acc[1][j] += q * *b1;
        }
      }
      memcpy(c + n * 16, acc, sizeof acc);
    }
  }

  // ---- numbers of one token along the lanes, for few rows --------------------------------------------------------
  // 2 * kLanes numbers become a LanePair in an order that the set may choose for each format, because both operands of a
  // dot product follow it; join_* writes them back in memory order.

  using Lanes = Quad;
  struct LanePair {
    Lanes first, second;
  };
  static constexpr int kLanes = 4;

  static Lanes load_lanes(float const* p) {
    Quad q;
    memcpy(&q, p, sizeof q);
    return q;
  }
  static void store_lanes(float* p, Lanes const& x) { memcpy(p, &x, sizeof x); }
  static Lanes set_lanes(float x) { return Quad{x, x, x, x}; }
  static Lanes mul_lanes(Lanes const& a, Lanes const& b) { return a * b; }
  static Lanes fma_lanes(Lanes const& a, Lanes const& b, Lanes const& c) { return a * b + c; }
  /// out[i] = the sum of the lanes of x[i]
  static void sums_of_8(float* out, Lanes const (&x)[8]) {
    for (int i = 0; i < 8; ++i) out[i] = (x[i][0] + x[i][2]) + (x[i][1] + x[i][3]);
  }
  /// BF16: numbers at even places, then those at odd ones: a shift and a mask widen them.
  static LanePair split_bf16(void const* p) {
    Words words;
    memcpy(&words, p, sizeof words);
    Words const low = words << 16, high = words & 0xffff0000u;
    LanePair pair;
    memcpy(&pair.first, &low, sizeof low);
    memcpy(&pair.second, &high, sizeof high);
    return pair;
  }
  static void join_bf16(float* out, LanePair const& x) {
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = x.first[i];
      out[2 * i + 1] = x.second[i];
    }
  }
  static LanePair split_fp16(void const* p) {
    Words words;
    memcpy(&words, p, sizeof words);
    return {from_fp16_words(words & 0xffffu), from_fp16_words(words >> 16)};
  }
  static void join_fp16(float* out, LanePair const& x) { join_bf16(out, x); }

  // Conversions of one number; the vector sets do the same in hardware.
  static float from_fp16(uint16_t h) {
    uint32_t const sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    uint32_t const magnitude = h & 0x7fffu;
    float value;
    if (magnitude >= 0x7c00u) {  // Inf, NaN
      uint32_t const bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
      memcpy(&value, &bits, sizeof value);
      return value;
    }
    uint32_t const bits = magnitude << 13;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;  // exponent bias 127 - 15; turns denormals into normals too
    uint32_t signed_bits;
    memcpy(&signed_bits, &value, sizeof value);
    signed_bits |= sign;
    memcpy(&value, &signed_bits, sizeof value);
    return value;
  }
  static Quad from_fp16_words(Words half) {
    Words const magnitude = (half & 0x7fffu) << 13;
    Quad value;
    memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    Words bits, is_special = magnitude >= 0x0f800000u ? Words{} + 0x7f800000u : Words{};
    memcpy(&bits, &value, sizeof bits);
    bits |= (half & 0x8000u) << 16 | is_special;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  static uint16_t to_bf16(float x) {  // to nearest even
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
  static uint16_t to_fp16(float x) {  // to nearest even
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t const sign = bits >> 16 & 0x8000u;
    uint32_t const magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to Inf
    if (magnitude < 0x38800000u) {                                               // denormal: let the adder round it
      float value;
      memcpy(&value, &magnitude, sizeof value);
      value += 0.5f;
      uint32_t rounded;
      memcpy(&rounded, &value, sizeof rounded);
      return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
    }
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
  }

  static constexpr float kRoundToInteger = 0x1.8p23f;  // adding it leaves no fraction bits
  // 2^f on [-1/2, 1/2], minimax (2e-9) among polynomials that are exactly 1 at 0: a maximum that stays must scale older sums by
  // 1, or a long request drifts by an ulp for each of its tiles.
  static constexpr int kExp2Degree = 6;
  static constexpr float kExp2[kExp2Degree + 1] = {1.0f,          0.69314718f,   0.24022648f,   0.055503324f,
                                                   0.0096184369f, 0.0013398875f, 0.00015353360f};
};

}  // namespace flashmla::cpu
