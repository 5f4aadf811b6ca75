// Translation of CUDA statuses: a machine without CUDA is "unsupported", never a defect.
#include "cuda/errors.hpp"

#include <string>

namespace flashmla::cuda {

flashmla_status status_of(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return FLASHMLA_OK;
    case cudaErrorMemoryAllocation:
      return FLASHMLA_OUT_OF_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return FLASHMLA_UNSUPPORTED;
    default:
      return FLASHMLA_DEVICE_ERROR;
  }
}

void check_cuda(cudaError_t status, char const* operation, char const* call) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw core::Error(status_of(status), std::string(operation) + ": " + call + ": got " + cudaGetErrorName(status) +
                                           ", expected cudaSuccess (" + cudaGetErrorString(status) + ")");
}

}  // namespace flashmla::cuda
