// Random keys and queries in BF16, FP16 or FP32, cheap enough for caches of gigabytes.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>

#include "conformance/random.hpp"

namespace flashmla::conformance {

/// Deviation of the numbers in a cache.
inline constexpr float kCacheStd = 0.1f;

/// `count` (at most 4,096) numbers of deviation 0.1, copied from a random place of a long tape of them.
void copy_noise(Random& random, flashmla_dtype dtype, void* target, int64_t count);

/// `count` fresh numbers of deviation `std`.
void fill_noise(Random& random, flashmla_dtype dtype, float std, void* target, int64_t count);

}  // namespace flashmla::conformance
