#include "conformance/noise.hpp"

#include <algorithm>
#include <vector>

#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

constexpr int64_t kTapeElems = 1 << 20;
constexpr int64_t kMaxCopy = 4096;

std::vector<char> make_tape(flashmla_dtype dtype) {
  std::vector<char> tape(static_cast<size_t>(kTapeElems + kMaxCopy) * reference::element_bytes(dtype));
  Random random(seed_of("tape"));
  fill_noise(random, dtype, kCacheStd, tape.data(), kTapeElems + kMaxCopy);
  return tape;
}

std::vector<char> const& tape_of(flashmla_dtype dtype) {
  static std::vector<char> const bf16 = make_tape(FLASHMLA_BF16);
  static std::vector<char> const fp16 = make_tape(FLASHMLA_FP16);
  if (dtype != FLASHMLA_FP32) return dtype == FLASHMLA_BF16 ? bf16 : fp16;
  static std::vector<char> const fp32 = make_tape(FLASHMLA_FP32);
  return fp32;
}

}  // namespace

void copy_noise(Random& random, flashmla_dtype dtype, void* target, int64_t count) {
  int64_t const bytes = static_cast<int64_t>(reference::element_bytes(dtype));
  std::copy_n(tape_of(dtype).data() + random.below(kTapeElems) * bytes, count * bytes, static_cast<char*>(target));
}

void fill_noise(Random& random, flashmla_dtype dtype, float std, void* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) reference::store(dtype, target, i, random.normal() * std);
}

}  // namespace flashmla::conformance
