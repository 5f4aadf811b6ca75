// Device queries of the CUDA runtime, each failure turned into a sentence.
#include "cuda/device_info.hpp"

#include <cuda_runtime_api.h>

#include "cuda/backend.hpp"
#include "cuda/errors.hpp"

namespace flashmla::cuda {
namespace {

constexpr int32_t kHopper = 90;

std::string capability_text(int32_t capability) { return std::to_string(capability / 10) + "." + std::to_string(capability % 10); }

DeviceInfo describe_device(int index) {
  DeviceInfo info;
  info.index = index;
  cudaDeviceProp properties{};
  if (cudaError_t const status = cudaGetDeviceProperties(&properties, index); status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    info.reason = std::string("cudaGetDeviceProperties failed: ") + cudaGetErrorString(status);
    return info;
  }
  info.name = properties.name;
  info.num_sms = properties.multiProcessorCount;
  info.capability = 10 * properties.major + properties.minor;
  info.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  if (info.capability != kHopper)
    info.reason = "compute capability " + capability_text(info.capability) + ", the kernels need 9.0 (Hopper)";
  return info;
}

}  // namespace

int32_t num_devices() {
  int count = 0;
  if (driver().reason.empty() && cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices;
  for (int32_t i = 0, count = num_devices(); i < count; ++i) devices.push_back(describe_device(i));
  return devices;
}

DeviceInfo require_device(char const* operation, int32_t index) {
  std::string const wanted = "cuda:" + std::to_string(index);
  if (std::string const reason = driver().reason; !reason.empty())
    core::fail_unsupported(operation, "device", wanted, "cpu (" + reason + ")");
  int32_t const count = num_devices();
  if (index < 0 || index >= count)
    core::fail_unsupported(operation, "device", wanted,
                           count == 1 ? "cuda:0 (the only one here)" : "an index below " + std::to_string(count));
  DeviceInfo info = describe_device(index);
  if (!info.reason.empty())
    core::fail_unsupported(operation, "device", wanted + " " + info.name, "a Hopper GPU or cpu (" + info.reason + ")");
  return info;
}

DeviceGuard::DeviceGuard(char const* operation, int32_t index) {
  int current = -1;
  if (cudaError_t const status = cudaGetDevice(&current); status != cudaSuccess) {
    if (std::string const reason = driver().reason; !reason.empty())
      core::fail_unsupported(operation, "device", "cuda:" + std::to_string(index), "cpu (" + reason + ")");
    check_cuda(status, operation, "cudaGetDevice");
  }
  if (current == index) return;
  check_cuda(cudaSetDevice(index), operation, "cudaSetDevice");
  previous_ = current;
}

DeviceGuard::~DeviceGuard() {
  if (previous_ >= 0 && cudaSetDevice(previous_) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

RelaxedCapture::RelaxedCapture() {
  if (cudaThreadExchangeStreamCaptureMode(&mode_) == cudaSuccess) is_set_ = true;
  else static_cast<void>(cudaGetLastError());
}

RelaxedCapture::~RelaxedCapture() {
  if (is_set_ && cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

}  // namespace flashmla::cuda
