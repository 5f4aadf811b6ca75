// The vocabulary on AArch64's NEON, which every AArch64 has: 16 rows are four 4-lane vectors, and all arithmetic is
// float32. See scalar.hpp for what each function means.
#pragma once

#include "cpu/isa/scalar.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>

namespace flashmla::cpu {

struct Neon {
  static constexpr bool kHasBf16Dot = false, kHasTiles = false, kHasTileFmaPair = false;
  static constexpr int kNarrowRowsBf16 = 8, kNarrowRowsFp16 = 8, kNarrowRowsFp32 = 8;  // not measured: no AArch64 machine at hand

  struct Rows {
    float32x4_t part[4];
  };

  static Rows load(float const* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
  static void store(float* p, Rows const& r) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, r.part[i]);
  }
  static Rows set1(float x) {
    float32x4_t const all = vdupq_n_f32(x);
    return {{all, all, all, all}};
  }
  static Rows mul(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = vmulq_f32(a.part[i], b.part[i]);
    return r;
  }
  static Rows add(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = vaddq_f32(a.part[i], b.part[i]);
    return r;
  }
  static Rows sub(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = vsubq_f32(a.part[i], b.part[i]);
    return r;
  }
  static Rows max(Rows const& a, Rows const& b) {
    Rows r;
    for (int i = 0; i < 4; ++i) r.part[i] = vmaxq_f32(a.part[i], b.part[i]);
    return r;
  }
  static Rows exp2(Rows const& x) {
    Rows r;
    for (int i = 0; i < 4; ++i) {
      float32x4_t const clamped = vmaxq_f32(x.part[i], vdupq_n_f32(-127.0f));
      float32x4_t const whole = vrndnq_f32(clamped), f = vsubq_f32(clamped, whole);
      float32x4_t p = vdupq_n_f32(Scalar::kExp2[Scalar::kExp2Degree]);
      for (int k = Scalar::kExp2Degree - 1; k >= 0; --k) p = vfmaq_f32(vdupq_n_f32(Scalar::kExp2[k]), p, f);
      int32x4_t const exponent = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127)), 23);
      r.part[i] = vmulq_f32(p, vreinterpretq_f32_s32(exponent));
    }
    return r;
  }
  static Rows mask_token(Rows const& x, int32_t const* limit, int32_t token) {
    Rows r;
    for (int i = 0; i < 4; ++i) {
      uint32x4_t const seen = vcgtq_s32(vld1q_s32(limit + 4 * i), vdupq_n_s32(token));
      r.part[i] = vbslq_f32(seen, x.part[i], vdupq_n_f32(-__builtin_inff()));
    }
    return r;
  }

  static void widen_bf16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
      uint16x8_t const codes = vld1q_u16(in + i);
      vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(codes), 16)));
      vst1q_f32(out + i + 4, vreinterpretq_f32_u32(vshll_high_n_u16(codes, 16)));
    }
    Scalar::widen_bf16(out + i, in + i, n - i);
  }
  static void widen_fp16(float* out, uint16_t const* in, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(in + i))));
    Scalar::widen_fp16(out + i, in + i, n - i);
  }
  static void narrow_bf16(uint16_t* out, float const* in, int n) { Scalar::narrow_bf16(out, in, n); }
  static void narrow_fp16(uint16_t* out, float const* in, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(in + i))));
    Scalar::narrow_fp16(out + i, in + i, n - i);
  }
  static void accumulate(float* out, float const* in, float weight, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vfmaq_n_f32(vld1q_f32(out + i), vld1q_f32(in + i), weight));
    Scalar::accumulate(out + i, in + i, weight, n - i);
  }
  static void prefetch(void const* p) { __builtin_prefetch(p, 0, 2); }
  static void transpose_words(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in) {
    Scalar::transpose_words(out, out_words, in);
  }

  /// 32 registers hold 4 x 4 accumulators, four vectors of a and what is broadcast.
  static void tile_fma(float* c, float const* alpha, FmaOperands const& x) {
    for (int n = 0; n < 16; n += 4, c += 64) {
      float32x4_t acc[4][4];
      start_strip(acc, c, alpha);
      float const *a = x.a, *b = x.b + n * x.n_stride;
      for (int k = 0; k < x.num_k; ++k, a += 16, b += x.k_stride) {
        Rows const rows = load(a);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) acc[i][j] = vfmaq_n_f32(acc[i][j], rows.part[j], b[i * x.n_stride]);
        }
      }
      finish_strip(c, acc);
    }
  }

  // ---- numbers of one token along the lanes ----------------------------------------------------------------------

  using Lanes = float32x4_t;
  struct LanePair {
    Lanes first, second;
  };
  static constexpr int kLanes = 4;

  static Lanes load_lanes(float const* p) { return vld1q_f32(p); }
  static void store_lanes(float* p, Lanes x) { vst1q_f32(p, x); }
  static Lanes set_lanes(float x) { return vdupq_n_f32(x); }
  static Lanes mul_lanes(Lanes a, Lanes b) { return vmulq_f32(a, b); }
  static Lanes fma_lanes(Lanes a, Lanes b, Lanes c) { return vfmaq_f32(c, a, b); }
  static void sums_of_8(float* out, Lanes const (&x)[8]) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
    vst1q_f32(out + 4, vpaddq_f32(vpaddq_f32(x[4], x[5]), vpaddq_f32(x[6], x[7])));
  }
  static LanePair split_bf16(void const* p) {
    uint16x8_t const codes = vld1q_u16(static_cast<uint16_t const*>(p));
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(codes), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(codes, 16))};
  }
  static void join_bf16(float* out, LanePair const& x) {
    vst1q_f32(out, x.first);
    vst1q_f32(out + 4, x.second);
  }
  static LanePair split_fp16(void const* p) {
    float16x8_t const halves = vreinterpretq_f16_u16(vld1q_u16(static_cast<uint16_t const*>(p)));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
  }
  static void join_fp16(float* out, LanePair const& x) { join_bf16(out, x); }

 protected:
  static void start_strip(float32x4_t (&acc)[4][4], float const* c, float const* alpha) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        acc[i][j] = alpha == nullptr ? vdupq_n_f32(0) : vmulq_f32(vld1q_f32(alpha + 4 * j), vld1q_f32(c + i * 16 + 4 * j));
    }
  }
  static void finish_strip(float* c, float32x4_t const (&acc)[4][4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) vst1q_f32(c + i * 16 + 4 * j, acc[i][j]);
    }
  }
};

}  // namespace flashmla::cpu
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using Neon = Scalar;
}  // namespace flashmla::cpu
#endif
