// Launching a kernel so that it may start while its predecessor on the stream finishes (programmatic dependent launch).
//
// Every kernel of this library begins with cudaGridDependencySynchronize() before it touches memory, so the overlap is
// only that of launch latency. Included by the launchers in kernels/*.cu.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "cuda/device_info.hpp"
#include "cuda/errors.hpp"

namespace flashmla::cuda {

struct LaunchShape {
  unsigned grid;
  unsigned block;
  size_t smem_bytes = 0;
  cudaStream_t stream = nullptr;
};

template <class... Params, class... Args>
void launch_overlapped(char const* operation, void (*kernel)(Params...), LaunchShape const& shape, Args const&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.grid);
  config.blockDim = dim3(shape.block);
  config.dynamicSmemBytes = shape.smem_bytes;
  config.stream = shape.stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), operation, "cudaLaunchKernelEx");
}

/// Loads a kernel's module now: lazy loading inside run could synchronise or allocate. Legal inside capture.
template <class Kernel>
void load_kernel(char const* operation, Kernel kernel) {
  RelaxedCapture const relaxed;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), operation, "cudaFuncGetAttributes");
}

/// Remembers on which devices a kernel was loaded, for operations that have no plan to do it in.
class LoadOnce {
 public:
  template <class Kernel>
  void operator()(char const* operation, Kernel kernel, int32_t device) {
    uint64_t const bit = device < 64 ? uint64_t{1} << device : 0;  // devices beyond are loaded every time
    if ((devices_.load(std::memory_order_acquire) & bit) != 0) return;
    load_kernel(operation, kernel);
    devices_.fetch_or(bit, std::memory_order_release);
  }

 private:
  std::atomic<uint64_t> devices_{0};
};

}  // namespace flashmla::cuda
