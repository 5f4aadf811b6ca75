// What a backend fills in. Core owns the interface and names no backend; src/api is the composition root.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/calls.hpp"
#include "core/parts.hpp"
#include "core/planner.hpp"

namespace flashmla::core {

/// One problem bound to one device. Immutable; every method may be called from many threads. All calls on a device with
/// streams only enqueue; `fault` alone synchronises.
class DecodePlan {
 public:
  virtual ~DecodePlan() = default;
  [[nodiscard]] virtual PlanShape shape() const = 0;
  /// What a step of these rows is cut with: shape(), unless the plan has another way for it.
  [[nodiscard]] virtual PlanShape shape_for(StepRows const& /*rows*/) const { return shape(); }
  [[nodiscard]] virtual size_t schedule_bytes() const = 0;
  [[nodiscard]] virtual size_t workspace_bytes() const = 0;
  virtual void update(LengthsCall const& call, void* schedule, flashmla_stream stream) const = 0;
  virtual void reset(void* workspace, flashmla_stream stream) const = 0;
  virtual void run(DecodeCall const& call, void const* schedule, void* workspace, flashmla_stream stream) const = 0;
  virtual void fault(void* workspace, flashmla_stream stream, flashmla_fault& fault) const = 0;
  [[nodiscard]] virtual std::string describe() const = 0;
};

/// A row of the kernel table as people see it.
struct KernelRow {
  std::string name;
  std::string serves;
  bool usable = false;
  std::string reason;  // why not usable, else empty
  flashmla_isa isa = FLASHMLA_ISA_AUTO;
  bool built = true;  // false: the row stands for another architecture than this build's
};

struct DeviceRow {
  flashmla_device device{};
  bool usable = false;
  int32_t num_units = 0;
  int32_t capability = 0;
  int64_t memory_bytes = 0;
  std::string name;
  std::string reason;
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual flashmla_device_kind kind() const = 0;
  [[nodiscard]] virtual std::vector<DeviceRow> devices() const = 0;
  [[nodiscard]] virtual std::vector<KernelRow> kernels() const = 0;
  /// Throws Error(FLASHMLA_UNSUPPORTED), which names the nearest supported problem, when no kernel row accepts it.
  [[nodiscard]] virtual std::unique_ptr<DecodePlan> make_plan(Problem const& problem, Target const& target) const = 0;
  virtual void merge(MergeCall const& call, flashmla_stream stream) const = 0;
  virtual void append(AppendCall const& call, flashmla_stream stream) const = 0;
  virtual void copy_pages(CopyPagesCall const& call, flashmla_stream stream) const = 0;
};

}  // namespace flashmla::core
