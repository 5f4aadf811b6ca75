// A kernel that keeps multiprocessors busy, so that the CTAs of another cannot all run at once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace flashmla::test {

/// Holds `count` multiprocessors of the current device from construction to destruction: a CTA each, whose shared memory leaves no room
/// for one of a decode kernel. Throws std::runtime_error where they do not all start within ten seconds.
class ProcessorHold {
 public:
  explicit ProcessorHold(int count);
  ~ProcessorHold();
  ProcessorHold(ProcessorHold const&) = delete;
  ProcessorHold& operator=(ProcessorHold const&) = delete;

 private:
  void release();

  cudaStream_t stream_ = nullptr;
  uint32_t* flags_ = nullptr;  // of mapped host memory: [0] CTAs that have started, [1] they may end
};

}  // namespace flashmla::test
