// A paged cache full of random tokens, and other buffers of random rows: content does not matter to speed, as long as it
// is not zeros.
#pragma once

#include <cstdint>

#include "tools/flashmla/device.hpp"
#include "tools/flashmla/target.hpp"

namespace flashmla::tools {

// Of caches that are served.
inline constexpr int32_t kQkDim = 576, kLatent = 512;
inline constexpr int64_t kElementBytes = 2;
inline constexpr int64_t kTokenBytes = kQkDim * kElementBytes;  // of one layer

// With keys of deviation 0.1 and the default scale, queries of this deviation give scores of deviation 1.
inline constexpr float kQueryStd = 10.0F;

/// `elements` numbers of a normal distribution in BF16, FP16 or FP32.
Buffer random_numbers(DeviceContext& device, ElementType type, float deviation, int64_t elements, uint64_t seed);

/// A block of random tokens that caches are filled from.
class TokenBlock {
 public:
  TokenBlock(DeviceContext& device, ElementType type, uint64_t seed);
  /// Enqueues: fills `num_tokens` tokens with the block over and over, begun somewhere that depends on `variant`.
  void fill(void* cache, int64_t num_tokens, int64_t variant) const;

 private:
  DeviceContext& device_;
  int64_t token_bytes_;
  Buffer block_;
};

}  // namespace flashmla::tools
