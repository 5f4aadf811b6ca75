// The composition root: the only place that names every backend.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace flashmla::api {

/// All backends of this build, in the order in which people see them: CPU, CUDA. Made once, on first use.
std::vector<std::unique_ptr<core::Backend>> const& backends();

/// The backend of a device. Throws Error(FLASHMLA_UNSUPPORTED) when it is not in this build.
core::Backend const& backend_for(char const* operation, flashmla_device device);

/// What the CUDA part needs and what it found.
struct CudaDriver {
  bool built = false;
  int32_t found = 0, needed = 0;  // 1000 * major + 10 * minor
  std::string reason;             // why CUDA can't be used, else empty
};
CudaDriver cuda_driver();

}  // namespace flashmla::api
