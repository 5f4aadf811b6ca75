// The driver: what is there, what this build needs, and one sentence why CUDA can't be used. libcuda is looked up by the
// static runtime when the first call is made, so this file runs on machines that have never seen a GPU.
#include <cuda_runtime_api.h>

#include "cuda/backend.hpp"

namespace flashmla::cuda {
namespace {

// Any driver of the toolkit's major version runs its machine code (CUDA minor version compatibility).
constexpr int32_t kNeededDriver = CUDART_VERSION / 1000 * 1000;

std::string version_text(int32_t version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

}  // namespace

Driver driver() {
  Driver answer;
  answer.needed = kNeededDriver;
  int version = 0;
  cudaError_t status = cudaDriverGetVersion(&version);
  if (status != cudaSuccess || version == 0) {
    static_cast<void>(cudaGetLastError());
    answer.reason = "no NVIDIA driver found (libcuda.so.1), CUDA " + version_text(kNeededDriver) + " or newer needed";
    return answer;
  }
  answer.found = version;
  if (version < kNeededDriver) {
    answer.reason = "the NVIDIA driver serves CUDA " + version_text(version) + ", " + version_text(kNeededDriver) + " or newer needed";
    return answer;
  }
  int count = 0;
  status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    answer.reason =
        status == cudaErrorNoDevice ? "no CUDA device is visible" : std::string("CUDA did not start: ") + cudaGetErrorString(status);
    if (status == cudaErrorInitializationError) answer.reason += " (CUDA can't be used in a process forked after its parent used it)";
  }
  return answer;
}

}  // namespace flashmla::cuda
