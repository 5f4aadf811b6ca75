// The CUDA backend's front door: rows for people, plans for problems, and the stand-alone operations.
#include "cuda/backend.hpp"

#include "cuda/decode_plan.hpp"
#include "cuda/device_info.hpp"
#include "cuda/kernel_table.hpp"
#include "cuda/kernels/append.hpp"
#include "cuda/kernels/copy_pages.hpp"
#include "cuda/kernels/merge.hpp"

namespace flashmla::cuda {
namespace {

// Empty when some device can run the kernels, else why none can.
std::string unusable_reason() {
  if (std::string const reason = driver().reason; !reason.empty()) return reason;
  std::string reason = "no CUDA device is visible";
  for (DeviceInfo const& device : list_devices()) {
    if (device.reason.empty()) return "";
    reason = device.name + ": " + device.reason;
  }
  return reason;
}

class CudaBackend final : public core::Backend {
 public:
  [[nodiscard]] flashmla_device_kind kind() const override { return FLASHMLA_CUDA; }

  [[nodiscard]] std::vector<core::DeviceRow> devices() const override {
    std::vector<core::DeviceRow> rows;
    for (DeviceInfo const& info : list_devices())
      rows.push_back(
          {{FLASHMLA_CUDA, info.index}, info.reason.empty(), info.num_sms, info.capability, info.memory_bytes, info.name, info.reason});
    return rows;
  }

  [[nodiscard]] std::vector<core::KernelRow> kernels() const override {
    std::string const reason = unusable_reason();
    std::vector<core::KernelRow> rows;
    for (KernelEntry const& kernel : kKernels) rows.push_back({kernel.name, serves(kernel), reason.empty(), reason, FLASHMLA_ISA_AUTO});
    return rows;
  }

  [[nodiscard]] std::unique_ptr<core::DecodePlan> make_plan(core::Problem const& problem, core::Target const& target) const override {
    return make_decode_plan(problem, target);
  }

  void merge(core::MergeCall const& call, flashmla_stream stream) const override {
    if (call.tokens == 0 || call.heads == 0) return;
    DeviceGuard const guard("merge", call.device.index);
    launch_merge(call, stream);
  }

  void append(core::AppendCall const& call, flashmla_stream stream) const override {
    if (call.tokens == 0) return;
    DeviceGuard const guard("append", call.device.index);
    launch_append(call, stream);
  }

  void copy_pages(core::CopyPagesCall const& call, flashmla_stream stream) const override {
    DeviceGuard const guard("copy_pages", call.device.index);
    launch_copy_pages(call, stream);
  }
};

}  // namespace

std::unique_ptr<core::Backend> make_backend() { return std::make_unique<CudaBackend>(); }

}  // namespace flashmla::cuda
