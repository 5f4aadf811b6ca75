// DecodePlan: attention of decoding steps over a paged cache, planned once, run for every layer.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <flashmla/error.hpp>
#include <flashmla/problem.hpp>
#include <flashmla/view.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace flashmla {

using Part = flashmla_part;
using Fault = flashmla_fault;

/// One problem bound to one device. Movable; immutable, so many threads may use one plan. Every method that can fail
/// throws Error; a failed call changes nothing.
class DecodePlan {
 public:
  /// Does everything that can fail, allocate or load. Legal inside stream capture. Throws Error: FLASHMLA_INVALID_ARGUMENT,
  /// or FLASHMLA_UNSUPPORTED with the nearest supported problem.
  static DecodePlan make(Problem const& problem, Target const& target) {
    if (flashmla_abi_version() != FLASHMLA_ABI_VERSION)
      throw Error(FLASHMLA_UNSUPPORTED, "plan_create: library: got ABI version " + std::to_string(flashmla_abi_version()) + ", expected " +
                                            std::to_string(FLASHMLA_ABI_VERSION) +
                                            " (another libflashmla was loaded than was compiled for)");
    flashmla_plan* plan = nullptr;
    check(flashmla_plan_create(&problem, &target, &plan));
    return DecodePlan(plan);
  }

  /// Sizes of the caller-owned buffers, on the plan's device, 256-byte aligned. A schedule is read-only for run and may
  /// be shared by all layers and streams of a step; a workspace belongs to one run in flight.
  [[nodiscard]] size_t schedule_bytes() const noexcept { return flashmla_plan_schedule_bytes(plan_.get()); }
  [[nodiscard]] size_t workspace_bytes() const noexcept { return flashmla_plan_workspace_bytes(plan_.get()); }

  /// Enqueues: makes the schedule of a step from its lengths. A schedule of earlier lengths costs balance, not correctness.
  void update(Lengths const& lengths, View const& schedule, Stream stream = nullptr) const {
    check(flashmla_plan_update(plan_.get(), &lengths, &schedule, stream));
  }
  /// Enqueues: clears the workspace's state; once, after it was allocated.
  void reset(View const& workspace, Stream stream = nullptr) const { check(flashmla_plan_reset(plan_.get(), &workspace, stream)); }
  /// Enqueues: attention of one layer. No allocation, no synchronisation.
  void run(DecodeArgs const& args, View const& schedule, View const& workspace, Stream stream = nullptr) const {
    check(flashmla_plan_run(plan_.get(), &args, &schedule, &workspace, stream));
  }
  /// Synchronises; returns and clears the first fault recorded since the last call.
  [[nodiscard]] std::optional<Fault> fault(View const& workspace, Stream stream = nullptr) const {
    Fault found{};
    check(flashmla_plan_fault(plan_.get(), &workspace, stream, &found));
    if (found.code == FLASHMLA_FAULT_NONE) return std::nullopt;
    return found;
  }

  /// Kernel chosen, workers, tiles, shared memory, registers.
  [[nodiscard]] std::string describe() const {
    std::string text(flashmla_plan_describe(plan_.get(), nullptr, 0), '\0');
    text.resize(text.empty() ? 0 : flashmla_plan_describe(plan_.get(), text.data(), text.size()) - 1);
    return text;
  }
  /// How the plan splits lengths kv_len [batch] in host memory among its workers.
  [[nodiscard]] std::vector<Part> parts(std::vector<int32_t> const& kv_len, int32_t q_tokens = 1) const {
    return list_parts([&](Part* list, int64_t* count) {
      return flashmla_plan_parts(plan_.get(), kv_len.data(), static_cast<int64_t>(kv_len.size()), q_tokens, list, count);
    });
  }
  /// The same for ragged queries: q_offsets [batch + 1], as in Lengths::ragged. Throws Error for another number of offsets.
  [[nodiscard]] std::vector<Part> parts(std::vector<int32_t> const& kv_len, std::vector<int32_t> const& q_offsets) const {
    if (q_offsets.size() != kv_len.size() + 1)
      throw Error(FLASHMLA_INVALID_ARGUMENT, "plan_parts_ragged: q_offsets: got " + std::to_string(q_offsets.size()) +
                                                 " offsets, expected " + std::to_string(kv_len.size() + 1) + " (batch + 1)");
    return list_parts([&](Part* list, int64_t* count) {
      return flashmla_plan_parts_ragged(plan_.get(), kv_len.data(), q_offsets.data(), static_cast<int64_t>(kv_len.size()), list, count);
    });
  }

  /// The C handle, still owned by this object.
  [[nodiscard]] flashmla_plan const* handle() const noexcept { return plan_.get(); }

 private:
  /// `call` writes as many parts as there is room for, and says how many there are.
  template <class Call>
  static std::vector<Part> list_parts(Call const& call) {
    int64_t count = 0;
    if (call(nullptr, &count) == FLASHMLA_OK) return {};
    std::vector<Part> list(static_cast<size_t>(count));
    check(call(list.data(), &count));
    return list;
  }

  struct Destroy {
    void operator()(flashmla_plan* plan) const noexcept { flashmla_plan_destroy(plan); }
  };
  explicit DecodePlan(flashmla_plan* plan) noexcept : plan_(plan) {}

  std::unique_ptr<flashmla_plan, Destroy> plan_;
};

}  // namespace flashmla
