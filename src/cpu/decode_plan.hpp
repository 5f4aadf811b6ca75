// The CPU's decode plan: an instruction set, threads and the shape of the work.
#pragma once

#include <memory>

#include "core/backend.hpp"
#include "cpu/executor.hpp"
#include "cpu/isa_table.hpp"
#include "cpu/worker_memory.hpp"

namespace flashmla::cpu {

/// How a problem is cut for `threads` workers: all heads of a request share one pass over its tokens, unless its rows
/// are more than a cache holds.
core::PlanShape plan_shape(core::Problem const& problem, int32_t threads);

class DecodePlan final : public core::DecodePlan {
 public:
  DecodePlan(core::Problem const& problem, IsaRow const& row, Executor executor);

  [[nodiscard]] core::PlanShape shape() const override { return shape_; }
  [[nodiscard]] size_t schedule_bytes() const override;
  [[nodiscard]] size_t workspace_bytes() const override { return layout_.workspace_bytes(); }
  void update(core::LengthsCall const& call, void* schedule, flashmla_stream stream) const override;
  void reset(void* workspace, flashmla_stream stream) const override;
  void run(core::DecodeCall const& call, void const* schedule, void* workspace, flashmla_stream stream) const override;
  void fault(void* workspace, flashmla_stream stream, flashmla_fault& fault) const override;
  [[nodiscard]] std::string describe() const override;

 private:
  core::Problem problem_;
  IsaRow const& row_;
  Executor executor_;
  core::PlanShape shape_;
  WorkerLayout layout_;
};

}  // namespace flashmla::cpu
