// Random numbers that are the same on every machine: integer arithmetic, then one exact float operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace flashmla::conformance {

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  /// In [0, count); the bias of the modulo does not matter here.
  int64_t below(int64_t count) { return static_cast<int64_t>(next() % static_cast<uint64_t>(count)); }

  /// In [first, last].
  int32_t between(int32_t first, int32_t last) { return first + static_cast<int32_t>(below(static_cast<int64_t>(last) - first + 1)); }

  /// Mean 0, deviation 1, within +-3.47: the sum of four uniform numbers, a normal distribution to the eye.
  float normal() {
    uint64_t const bits = next();
    int64_t sum = -2 * 65535;
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int64_t>((bits >> shift) & 0xffff);
    return static_cast<float>(sum) * (1.7320508f / 65536.0f);
  }

  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
  }

 private:
  uint64_t state_;
};

/// A seed from a name, so that every case has its own data and keeps it when other cases come and go (FNV-1a).
constexpr uint64_t seed_of(char const* name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (; *name; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3ull;
  return hash;
}

}  // namespace flashmla::conformance
