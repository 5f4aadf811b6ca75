// A paged cache full of random tokens: see paged_cache.hpp.
#include "tools/flashmla/paged_cache.hpp"

#include <algorithm>
#include <vector>

#include "conformance/noise.hpp"

namespace flashmla::tools {
namespace {

constexpr int64_t kBlockTokens = 4099;  // prime, so that no two pages are alike

}  // namespace

Buffer random_numbers(DeviceContext& device, ElementType type, float deviation, int64_t elements, uint64_t seed) {
  std::vector<uint16_t> host(static_cast<size_t>(elements) * type.words());
  conformance::Random random(seed);
  conformance::fill_noise(random, type.dtype, deviation, host.data(), elements);
  Buffer numbers(device, host.size() * sizeof(uint16_t));
  device.copy_in(numbers.data(), host.data(), numbers.bytes());
  return numbers;
}

TokenBlock::TokenBlock(DeviceContext& device, ElementType type, uint64_t seed)
    : device_(device),
      token_bytes_(type.token_bytes()),
      block_(random_numbers(device, type, conformance::kCacheStd, kBlockTokens * type.qk_dim, seed)) {}

void TokenBlock::fill(void* cache, int64_t num_tokens, int64_t variant) const {
  int64_t in_block = variant * 1009 % kBlockTokens;
  for (int64_t token = 0; token < num_tokens;) {
    int64_t const count = std::min(num_tokens - token, kBlockTokens - in_block);
    device_.copy(static_cast<char*>(cache) + token * token_bytes_, static_cast<char const*>(block_.data()) + in_block * token_bytes_,
                 static_cast<size_t>(count * token_bytes_));
    token += count;
    in_block = 0;
  }
}

}  // namespace flashmla::tools
