// CUDA statuses as the library's one error type. Host code only; no CUDA call is made without one of these around it.
#pragma once

#include <cuda_runtime_api.h>

#include "core/error.hpp"

namespace flashmla::cuda {

/// Throws core::Error unless `status` is cudaSuccess: `operation: call: got <name>, expected cudaSuccess (<text>)`. The
/// runtime's sticky "last error" is cleared, so that a later launch check does not report it a second time.
void check_cuda(cudaError_t status, char const* operation, char const* call);

/// The status code that a CUDA error becomes: no driver and no device are UNSUPPORTED, memory is OUT_OF_MEMORY.
flashmla_status status_of(cudaError_t status);

}  // namespace flashmla::cuda
