#include "gpu/gpu_support.hpp"

#include <algorithm>
#include <cstring>
#include <random>

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

}  // namespace

void fill_normal(void* device, size_t count, bool is_fp16, float std, uint64_t seed) {
  constexpr size_t kBlock = size_t{1} << 20;
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0.0F, std);
  std::vector<uint16_t> block(std::min(count, kBlock));
  for (uint16_t& number : block) number = is_fp16 ? to_fp16(normal(engine)) : to_bf16(normal(engine));
  auto* const to = static_cast<uint16_t*>(device);
  check_call(cudaMemcpy(to, block.data(), block.size() * sizeof(uint16_t), cudaMemcpyHostToDevice), "cudaMemcpy");
  for (size_t done = block.size(); done < count;) {
    size_t const next = std::min(done, count - done);
    check_call(cudaMemcpy(to + done, to, next * sizeof(uint16_t), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    done += next;
  }
}

}  // namespace flashmla::test
