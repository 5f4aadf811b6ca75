// How the narrow kernel multiplies: the numbers of one token lie along the lanes, and a *vector* is kStep of them.
#pragma once

#include <string.h>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

/// Numbers in float32: stored so, or widened from 16 bits. A set splits those between two vectors of lanes in an order of its
/// own; queries and outputs follow it, so that only finished rows are put back into memory order.
template <class Isa, Storage kStorage>
struct WidenedNumbers {
  using Lanes = typename Isa::Lanes;
  using Vector = typename Isa::LanePair;
  using Query = float;
  using Probability = float;
  static constexpr int kStep = 2 * Isa::kLanes;
  static constexpr int kBytes = number_bytes(kStorage);

  struct Values {
    Vector even, odd;  // of two tokens
  };
  struct Weight {
    Lanes even, odd;
  };

  static Vector key(char const* p) {
    if constexpr (kStorage == Storage::kFp32) return query(reinterpret_cast<float const*>(p));
    else if constexpr (kStorage == Storage::kBf16) return Isa::split_bf16(p);
    else return Isa::split_fp16(p);
  }
  static Vector query(Query const* p) { return {Isa::load_lanes(p), Isa::load_lanes(p + Isa::kLanes)}; }
  static Lanes dot(Lanes const& acc, Vector const& a, Vector const& b) {
    return Isa::fma_lanes(a.second, b.second, Isa::fma_lanes(a.first, b.first, acc));
  }
  static Values values(char const* even, char const* odd) { return {key(even), key(odd)}; }
  static Weight weight(Probability const* p) { return {Isa::set_lanes(p[0]), Isa::set_lanes(p[1])}; }
  static void weigh(Vector* acc, Weight const& w, Values const& v) {
    acc->first = Isa::fma_lanes(w.odd, v.odd.first, Isa::fma_lanes(w.even, v.even.first, acc->first));
    acc->second = Isa::fma_lanes(w.odd, v.odd.second, Isa::fma_lanes(w.even, v.even.second, acc->second));
  }
  static void pack(Query* out, char const* in, int n) {
    for (int i = 0; i < n; i += kStep) {
      Vector const v = key(in + i * kBytes);
      Isa::store_lanes(out + i, v.first);
      Isa::store_lanes(out + i + Isa::kLanes, v.second);
    }
  }
  static void store_probabilities(Probability* out, typename Isa::Rows const& p) { Isa::store(out, p); }
  /// kStep outputs in memory order.
  static void join(float* out, Vector const& acc) {
    if constexpr (kStorage == Storage::kFp32) {
      Isa::store_lanes(out, acc.first);
      Isa::store_lanes(out + Isa::kLanes, acc.second);
    } else if constexpr (kStorage == Storage::kBf16) {
      Isa::join_bf16(out, acc);
    } else {
      Isa::join_fp16(out, acc);
    }
  }
};

/// BF16 by dot products of pairs: keys and queries as they lie in memory, values as pairs of two tokens.
template <class Isa>
struct Bf16Pairs {
  using Lanes = typename Isa::Lanes;
  using Vector = typename Isa::Pairs;
  using Query = uint16_t;
  using Probability = uint16_t;
  static constexpr int kStep = 2 * Isa::kLanes;
  static constexpr int kBytes = 2;

  using Values = typename Isa::PairPair;
  using Weight = typename Isa::Pairs;

  static Vector key(char const* p) { return Isa::load_pairs(p); }
  static Vector query(Query const* p) { return Isa::load_pairs(p); }
  static Lanes dot(Lanes const& acc, Vector const& a, Vector const& b) { return Isa::dot_pairs(acc, a, b); }
  static Values values(char const* even, char const* odd) { return Isa::zip(even, odd); }
  static Weight weight(Probability const* p) { return Isa::set_pairs(p); }
  static void weigh(typename Isa::LanePair* acc, Weight const& w, Values const& v) {
    acc->first = Isa::dot_pairs(acc->first, w, v.first);
    acc->second = Isa::dot_pairs(acc->second, w, v.second);
  }
  static void pack(Query* out, char const* in, int n) { memcpy(out, in, static_cast<size_t>(n) * sizeof(Query)); }
  static void store_probabilities(Probability* out, typename Isa::Rows const& p) { Isa::store_bf16(out, p); }
  static void join(float* out, typename Isa::LanePair const& acc) { Isa::join_zipped(out, acc); }
};

}  // namespace flashmla::cpu
