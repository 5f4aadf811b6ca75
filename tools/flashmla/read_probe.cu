// Reads as fast as the memory gives: 16 bytes a load, eight in flight a thread, nothing kept in L1.
#include "tools/flashmla/read_probe.hpp"

namespace flashmla::tools {
namespace {

constexpr unsigned kThreads = 512;
constexpr unsigned kCtas = 2048;

__global__ void read_probe(int4 const* from, size_t count, int* sink) {
  int sum = 0;
  size_t const step = static_cast<size_t>(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    int4 const value = __ldcs(from + i);
    sum ^= value.x ^ value.y ^ value.z ^ value.w;
  }
  if (sum == 0x5eed1234) *sink = sum;
}

}  // namespace

void launch_read_probe(void const* from, size_t bytes, int* sink, cudaStream_t stream) {
  read_probe<<<kCtas, kThreads, 0, stream>>>(static_cast<int4 const*>(from), bytes / sizeof(int4), sink);
}

}  // namespace flashmla::tools
