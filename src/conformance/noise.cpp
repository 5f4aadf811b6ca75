#include "conformance/noise.hpp"

#include <algorithm>
#include <vector>

#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

constexpr int64_t kTapeElems = 1 << 20;
constexpr int64_t kMaxCopy = 4096;

std::vector<uint16_t> make_tape(flashmla_dtype dtype) {
  std::vector<uint16_t> tape(static_cast<size_t>(kTapeElems + kMaxCopy));
  Random random(seed_of("tape"));
  fill_noise(random, dtype, kCacheStd, tape.data(), static_cast<int64_t>(tape.size()));
  return tape;
}

std::vector<uint16_t> const& tape_of(flashmla_dtype dtype) {
  static std::vector<uint16_t> const bf16 = make_tape(FLASHMLA_BF16);
  static std::vector<uint16_t> const fp16 = make_tape(FLASHMLA_FP16);
  return dtype == FLASHMLA_BF16 ? bf16 : fp16;
}

}  // namespace

void copy_noise(Random& random, flashmla_dtype dtype, uint16_t* target, int64_t count) {
  std::copy_n(tape_of(dtype).data() + random.below(kTapeElems), count, target);
}

void fill_noise(Random& random, flashmla_dtype dtype, float std, uint16_t* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) reference::store(dtype, target, i, random.normal() * std);
}

}  // namespace flashmla::conformance
