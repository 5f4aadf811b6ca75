// The CUDA backend's front door; src/api is its only caller besides tests. No CUDA header is needed to include it.
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace flashmla::cuda {

/// Never fails: without a driver or a Hopper device the rows say why and make_plan throws FLASHMLA_UNSUPPORTED.
std::unique_ptr<core::Backend> make_backend();

struct Driver {
  int32_t found = 0;  // 1000 * major + 10 * minor, 0 without a driver
  int32_t needed = 0;
  std::string reason;  // why CUDA can't be used, else empty
};
Driver driver();

}  // namespace flashmla::cuda
