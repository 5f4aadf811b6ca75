// What this machine has: the driver, the devices, and why one of them can't be used. Nothing here creates a context.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace flashmla::cuda {

/// A device as the kernels need to know it; read once, when a plan is made.
struct DeviceInfo {
  int32_t index = 0;
  int32_t num_sms = 0;
  int32_t capability = 0;  // 10 * major + minor
  int64_t memory_bytes = 0;
  std::string name;
  std::string reason;  // why no plan can be made here, else empty
};

/// 0 without a usable driver. Never throws.
int32_t num_devices();

/// Every CUDA device, or none where there is no usable driver. Never throws.
std::vector<DeviceInfo> list_devices();

/// The device of that ordinal. Throws core::Error: INVALID_ARGUMENT for an ordinal that does not exist, UNSUPPORTED
/// without a driver or with a device that the kernels were not built for.
DeviceInfo require_device(char const* operation, int32_t index);

/// Makes a device current for a scope and puts the caller's back. Does nothing when it is current already.
class DeviceGuard {
 public:
  explicit DeviceGuard(char const* operation, int32_t index);
  ~DeviceGuard();
  DeviceGuard(DeviceGuard const&) = delete;
  DeviceGuard& operator=(DeviceGuard const&) = delete;

 private:
  int previous_ = -1;  // -1: nothing to restore
};

/// Lets this thread load modules and set attributes while it, or another thread, captures a stream.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(RelaxedCapture const&) = delete;
  RelaxedCapture& operator=(RelaxedCapture const&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // after construction: the thread's own
  bool is_set_ = false;
};

}  // namespace flashmla::cuda
