#include "gpu/gpu_support.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <utility>

namespace flashmla::test {
namespace {

uint16_t to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint16_t to_fp16(float value) {
  _Float16 const half = static_cast<_Float16>(value);
  uint16_t bits = 0;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

constexpr size_t kBlock = size_t{1} << 20, kShifts = size_t{1} << 16;

std::vector<uint16_t> make_block(bool is_fp16, float std) {
  std::mt19937_64 engine(is_fp16 ? 2 : 1);
  std::normal_distribution<float> normal(0.0F, std);
  std::vector<uint16_t> block(kBlock + kShifts);
  for (uint16_t& number : block) number = is_fp16 ? to_fp16(normal(engine)) : to_bf16(normal(engine));
  return block;
}

}  // namespace

void fill_normal(void* device, size_t count, bool is_fp16, float std, uint64_t seed) {
  static std::map<std::pair<bool, float>, std::vector<uint16_t>> blocks;  // drawing numbers takes longer than all else here
  std::vector<uint16_t>& block = blocks[{is_fp16, std}];
  if (block.empty()) block = make_block(is_fp16, std);
  size_t const first = std::min(count, kBlock);
  auto* const to = static_cast<uint16_t*>(device);
  check_call(cudaMemcpy(to, block.data() + seed * 7919 % kShifts, first * sizeof(uint16_t), cudaMemcpyHostToDevice), "cudaMemcpy");
  for (size_t done = first; done < count;) {
    size_t const next = std::min(done, count - done);
    check_call(cudaMemcpy(to + done, to, next * sizeof(uint16_t), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    done += next;
  }
}

}  // namespace flashmla::test
