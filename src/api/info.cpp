// What this build is, and what it finds on this machine.
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "api/backends.hpp"
#include "api/boundary.hpp"
#include "core/names.hpp"

using flashmla::api::guarded;
using flashmla::api::require;
namespace core = flashmla::core;

namespace {

template <size_t N>
void copy_text(char (&to)[N], std::string const& from) {
  std::snprintf(to, N, "%s", from.c_str());
}

/// Row `index` of the backends' rows put one after another: the backend and the row. `count` gets the number of all.
template <typename Rows>
auto find_row(char const* operation, int32_t index, Rows&& rows_of) {
  int64_t first = 0;
  for (auto const& backend : flashmla::api::backends()) {
    auto rows = rows_of(*backend);
    int64_t const size = static_cast<int64_t>(rows.size());
    if (index >= first && index < first + size) return std::pair(backend->kind(), std::move(rows[static_cast<size_t>(index - first)]));
    first += size;
  }
  core::fail_invalid(operation, "index", std::to_string(index), "0 to " + std::to_string(first - 1));
}

template <typename Rows>
int32_t count_rows(char const* operation, Rows&& rows_of) noexcept {
  int32_t count = 0;
  flashmla_status const status = guarded(operation, [&] {
    for (auto const& backend : flashmla::api::backends()) count += static_cast<int32_t>(rows_of(*backend).size());
  });
  return status == FLASHMLA_OK ? count : 0;
}

constexpr auto kDevices = [](core::Backend const& backend) { return backend.devices(); };
constexpr auto kKernels = [](core::Backend const& backend) { return backend.kernels(); };

std::string make_build_info() {
  std::string text;
#if defined(__clang__)
  text += "clang " __clang_version__;
#elif defined(__GNUC__)
  text += "gcc " __VERSION__;
#else
  text += "unknown compiler";
#endif
#if FLASHMLA_WITH_CUDA
  text += "; cuda " FLASHMLA_CUDA_TOOLKIT;
#else
  text += "; cuda off";
#endif
  text += "; targets";
  for (auto const& backend : flashmla::api::backends()) {
    if (backend->kind() == FLASHMLA_CUDA) text += " sm_90a";
    std::string seen = " ";
    for (core::KernelRow const& row : backend->kernels()) {
      std::string const name = std::string(core::isa_name(row.isa)) + " ";
      if (row.built && row.isa != FLASHMLA_ISA_AUTO && seen.find(" " + name) == std::string::npos) seen += name;
    }
    text += seen.substr(0, seen.size() - 1);
  }
  return text;
}

}  // namespace

extern "C" {

uint32_t flashmla_abi_version(void) { return FLASHMLA_ABI_VERSION; }

char const* flashmla_version(void) { return FLASHMLA_VERSION; }

char const* flashmla_build_info(void) {
  char const* text = "";
  guarded("build_info", [&] {
    static std::string const& info = *new std::string(make_build_info());
    text = info.c_str();
  });
  return text;
}

int32_t flashmla_num_devices(void) { return count_rows("num_devices", kDevices); }

flashmla_status flashmla_get_device_info(int32_t index, flashmla_device_info* info) {
  constexpr char kOperation[] = "get_device_info";
  return guarded(kOperation, [&] {
    require(kOperation, "info", info);
    flashmla::api::check_output_size(kOperation, info->struct_size, sizeof *info);
    core::DeviceRow const row = find_row(kOperation, index, kDevices).second;
    info->device = row.device;
    info->usable = row.usable ? 1 : 0;
    info->num_units = row.num_units;
    info->capability = row.capability;
    info->memory_bytes = row.memory_bytes;
    copy_text(info->name, row.name);
    copy_text(info->reason, row.reason);
  });
}

flashmla_status flashmla_get_driver_info(flashmla_driver_info* info) {
  constexpr char kOperation[] = "get_driver_info";
  return guarded(kOperation, [&] {
    require(kOperation, "info", info);
    flashmla::api::check_output_size(kOperation, info->struct_size, sizeof *info);
    flashmla::api::CudaDriver const driver = flashmla::api::cuda_driver();
    info->built = driver.built ? 1 : 0;
    info->found = driver.found;
    info->needed = driver.needed;
    copy_text(info->reason, driver.reason);
  });
}

int32_t flashmla_num_kernels(void) { return count_rows("num_kernels", kKernels); }

flashmla_status flashmla_get_kernel_info(int32_t index, flashmla_kernel_info* info) {
  constexpr char kOperation[] = "get_kernel_info";
  return guarded(kOperation, [&] {
    require(kOperation, "info", info);
    flashmla::api::check_output_size(kOperation, info->struct_size, sizeof *info);
    auto const [kind, row] = find_row(kOperation, index, kKernels);
    info->device_kind = kind;
    info->usable = row.usable ? 1 : 0;
    info->isa = row.isa;
    copy_text(info->name, row.name);
    copy_text(info->serves, row.serves);
    copy_text(info->reason, row.reason);
  });
}

}  // extern "C"
