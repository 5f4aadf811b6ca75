#include <chrono>

#include "gpu/gpu_support.hpp"
#include "gpu/hold_processors.hpp"

namespace flashmla::test {
namespace {

constexpr int kHeldBytes = 128 * 1024;  // a multiprocessor has 228 KB, a decode CTA takes 226

__global__ void hold_kernel(uint32_t volatile* flags) {
  atomicAdd_system(const_cast<uint32_t*>(flags), 1U);
  while (flags[1] == 0) __nanosleep(1000);
}

}  // namespace

ProcessorHold::ProcessorHold(int count) {
  check_call(cudaHostAlloc(&flags_, 2 * sizeof(uint32_t), cudaHostAllocMapped), "cudaHostAlloc");
  flags_[0] = flags_[1] = 0;
  check_call(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  check_call(cudaFuncSetAttribute(hold_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kHeldBytes), "cudaFuncSetAttribute");
  if (count == 0) return;
  hold_kernel<<<count, 1, kHeldBytes, stream_>>>(flags_);
  check_call(cudaGetLastError(), "hold_kernel");
  auto const start = std::chrono::steady_clock::now();
  while (*static_cast<uint32_t volatile*>(flags_) < static_cast<uint32_t>(count)) {
    if (std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) continue;
    release();
    throw std::runtime_error("the multiprocessors to hold did not all start");
  }
}

ProcessorHold::~ProcessorHold() { release(); }

void ProcessorHold::release() {
  *static_cast<uint32_t volatile*>(flags_ + 1) = 1;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  cudaFreeHost(flags_);
}

}  // namespace flashmla::test
