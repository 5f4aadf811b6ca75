// Fills in a Vocabulary; included inside the target region of the set.
#pragma once

#include "cpu/isa/vocabulary.hpp"

namespace flashmla::cpu::test {

template <class Isa>
struct VocabularyOf {
  static void mul(float* out, float const* a, float const* b) { Isa::store(out, Isa::mul(Isa::load(a), Isa::load(b))); }
  static void add(float* out, float const* a, float const* b) { Isa::store(out, Isa::add(Isa::load(a), Isa::load(b))); }
  static void sub(float* out, float const* a, float const* b) { Isa::store(out, Isa::sub(Isa::load(a), Isa::load(b))); }
  static void max(float* out, float const* a, float const* b) { Isa::store(out, Isa::max(Isa::load(a), Isa::load(b))); }
  static void exp2(float* out, float const* x) { Isa::store(out, Isa::exp2(Isa::load(x))); }
  static void set1(float* out, float x) { Isa::store(out, Isa::set1(x)); }
  static void mask_token(float* out, float const* x, int32_t const* limit, int32_t token) {
    Isa::store(out, Isa::mask_token(Isa::load(x), limit, token));
  }
  static void tile_fma(TileCall const& t) { Isa::tile_fma(t.c, t.alpha, {t.a, t.num_k, t.b, t.n_stride, t.k_stride}); }
  static void dot_keys(DotCall const& t) {
    if constexpr (Isa::kHasBf16Dot) Isa::tile_dot_keys(t.c, t.alpha, t.a, t.num_pairs, {t.b, t.n_bytes}, {t.b, t.n_bytes, 1});
  }
  static void dot_values(DotCall const& t) {
    if constexpr (Isa::kHasBf16Dot) {
      uint16_t const* const b = reinterpret_cast<uint16_t const*>(t.b);
      if (t.next_out == nullptr) Isa::template tile_dot_values<false>(t.c, t.alpha, t.a, t.num_pairs, b, {});
      else Isa::template tile_dot_values<true>(t.c, t.alpha, t.a, t.num_pairs, b, {t.next_tokens, 2, t.next_out, t.next_tokens, 0});
    }
  }
  static void interleave(uint16_t* out, char const* const* tokens, int num_pairs) {
    if constexpr (Isa::kHasBf16Dot) Isa::interleave({tokens, 2, out, nullptr, 0}, num_pairs);
  }
  static void store_pairs(uint16_t* out, float const* first, float const* second) {
    if constexpr (Isa::kHasBf16Dot) Isa::store_pairs(out, Isa::load(first), Isa::load(second));
  }
  static constexpr Vocabulary table(flashmla_isa isa, char const* name) {
    bool const dot = Isa::kHasBf16Dot;
    return {isa,
            name,
            &mul,
            &add,
            &sub,
            &max,
            &exp2,
            &set1,
            &mask_token,
            &Isa::widen_bf16,
            &Isa::widen_fp16,
            &Isa::narrow_bf16,
            &Isa::narrow_fp16,
            &Isa::accumulate,
            &tile_fma,
            dot ? &dot_keys : nullptr,
            dot ? &dot_values : nullptr,
            dot ? &interleave : nullptr,
            dot ? &store_pairs : nullptr};
  }
};

}  // namespace flashmla::cpu::test
