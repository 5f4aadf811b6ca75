// What the library is and what it finds on this machine.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <flashmla/error.hpp>
#include <string>
#include <vector>

namespace flashmla {

using DeviceInfo = flashmla_device_info;
using DriverInfo = flashmla_driver_info;
using KernelInfo = flashmla_kernel_info;

/// The CPU first, then CUDA devices by ordinal; `reason` says why one is not usable.
inline std::vector<DeviceInfo> devices() {
  std::vector<DeviceInfo> list(static_cast<size_t>(flashmla_num_devices()));
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].struct_size = sizeof(DeviceInfo);
    check(flashmla_get_device_info(static_cast<int32_t>(i), &list[i]));
  }
  return list;
}

/// The kernel table, in the order in which plans try its rows.
inline std::vector<KernelInfo> kernels() {
  std::vector<KernelInfo> list(static_cast<size_t>(flashmla_num_kernels()));
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].struct_size = sizeof(KernelInfo);
    check(flashmla_get_kernel_info(static_cast<int32_t>(i), &list[i]));
  }
  return list;
}

/// The CUDA driver found and the one needed.
inline DriverInfo driver() {
  DriverInfo info{};
  info.struct_size = sizeof info;
  check(flashmla_get_driver_info(&info));
  return info;
}

inline std::string version() { return flashmla_version(); }
/// One line: compiler, CUDA toolkit or "cuda off", targets.
inline std::string build_info() { return flashmla_build_info(); }

}  // namespace flashmla
