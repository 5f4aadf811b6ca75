// Device memory for conformance cases, on a stream of its own.
#pragma once

#include <memory>

#include "conformance/device_memory.hpp"

namespace flashmla::test {

/// `is_pooled`: allocations come from the stream-ordered pool, which is fast; plain ones serve memory checkers better.
std::unique_ptr<conformance::DeviceMemory> make_cuda_memory(int device, bool is_pooled);

}  // namespace flashmla::test
