#include "api/backends.hpp"

#include "core/error.hpp"
#include "core/names.hpp"
#include "cpu/backend.hpp"
#if FLASHMLA_WITH_CUDA
#include "cuda/backend.hpp"
#endif

namespace flashmla::api {

namespace {

constexpr char kNoCuda[] = "this library was built without CUDA";

std::vector<std::unique_ptr<core::Backend>> make_backends() {
  std::vector<std::unique_ptr<core::Backend>> list;
  list.push_back(cpu::make_backend());
#if FLASHMLA_WITH_CUDA
  list.push_back(cuda::make_backend());
#endif
  return list;
}

}  // namespace

std::vector<std::unique_ptr<core::Backend>> const& backends() {
  // Never destroyed: plans may outlive static destruction, and a forked child must not join threads it does not have.
  static auto const& list = *new std::vector<std::unique_ptr<core::Backend>>(make_backends());
  return list;
}

core::Backend const& backend_for(char const* operation, flashmla_device device) {
  for (auto const& backend : backends())
    if (backend->kind() == device.kind) return *backend;
  core::fail_unsupported(operation, "device", core::device_name(device), std::string("cpu (") + kNoCuda + ")");
}

CudaDriver cuda_driver() {
#if FLASHMLA_WITH_CUDA
  cuda::Driver const driver = cuda::driver();
  return {true, driver.found, driver.needed, driver.reason};
#else
  return {false, 0, 0, kNoCuda};
#endif
}

}  // namespace flashmla::api
