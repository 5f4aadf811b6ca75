// The ceiling of a GPU's memory: a kernel that only reads. CUDA builds only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace flashmla::tools {

/// Enqueues a read of `bytes` (a multiple of 16) from device memory. `sink` is an int in device memory that is practically
/// never written; it keeps the loads alive.
void launch_read_probe(void const* from, size_t bytes, int* sink, cudaStream_t stream);

}  // namespace flashmla::tools
