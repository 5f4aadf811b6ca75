// CUDA in a build without it: see device.hpp.
#include "tools/flashmla/device.hpp"
#include "tools/flashmla/errors.hpp"

namespace flashmla::tools {

std::unique_ptr<DeviceContext> open_cuda_device(int /*ordinal*/) {
  throw UsageError(
      "backend: got cuda, expected cpu (this build has no CUDA part; configure with -DFLASHMLA_CUDA=ON where nvcc 12.4 or newer is)");
}

}  // namespace flashmla::tools
