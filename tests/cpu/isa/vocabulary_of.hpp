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
  static void tile_fma_pair(TileCall const& t) {
    if constexpr (Isa::kHasTileFmaPair) Isa::tile_fma_pair(t.c, t.alpha, {t.a, t.num_k, t.b, t.n_stride, t.k_stride}, {256, t.num_k * 16});
  }
  static void dot_keys(DotCall const& t) {
    if constexpr (Isa::kHasBf16Dot) {
      char const* soon[16];
      for (int i = 0; i < 16; ++i) soon[i] = t.b + i * t.n_bytes;
      Isa::tile_dot_keys(t.c, t.alpha, t.a, t.num_pairs, {t.b, t.n_bytes}, {soon, 1});
    }
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
  static void mul_add_lanes(float* out, float const* a, float const* b, float const* c) {
    typename Isa::Lanes const x = Isa::load_lanes(a);
    Isa::store_lanes(out, Isa::mul_lanes(x, Isa::fma_lanes(x, Isa::load_lanes(b), Isa::load_lanes(c))));
  }
  static void sums_of_8(float* out, float const* x) {
    typename Isa::Lanes lanes[8];
    for (int i = 0; i < 8; ++i) lanes[i] = Isa::load_lanes(x + i * Isa::kLanes);
    Isa::sums_of_8(out, lanes);
  }
  static void split_and_join(float* out, uint16_t const* in, bool is_bf16) {
    if (is_bf16) Isa::join_bf16(out, Isa::split_bf16(in));
    else Isa::join_fp16(out, Isa::split_fp16(in));
  }
  static void dot_pairs(float* out, float const* acc, uint16_t const* a, uint16_t const* b) {
    if constexpr (Isa::kHasBf16Dot) Isa::store_lanes(out, Isa::dot_pairs(Isa::load_lanes(acc), Isa::load_pairs(a), Isa::load_pairs(b)));
  }
  static void weigh_two(float* out, uint16_t const* weights, uint16_t const* even, uint16_t const* odd) {
    if constexpr (Isa::kHasBf16Dot) {
      auto const values = Isa::zip(even, odd);
      typename Isa::Lanes const zero = Isa::set_lanes(0.0f);
      Isa::join_zipped(
          out, {Isa::dot_pairs(zero, Isa::set_pairs(weights), values.first), Isa::dot_pairs(zero, Isa::set_pairs(weights), values.second)});
    }
  }
  static void store_bf16(uint16_t* out, float const* x) {
    if constexpr (Isa::kHasBf16Dot) Isa::store_bf16(out, Isa::load(x));
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
            Isa::kHasTileFmaPair ? &tile_fma_pair : nullptr,
            &Isa::transpose_words,
            Isa::kLanes,
            &mul_add_lanes,
            &sums_of_8,
            &split_and_join,
            dot ? &dot_pairs : nullptr,
            dot ? &weigh_two : nullptr,
            dot ? &store_bf16 : nullptr,
            dot ? &dot_keys : nullptr,
            dot ? &dot_values : nullptr,
            dot ? &interleave : nullptr,
            dot ? &store_pairs : nullptr};
  }
};

}  // namespace flashmla::cpu::test
