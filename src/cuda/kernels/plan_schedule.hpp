// Launch interface of the device planner: core::make_schedule from lengths in device memory, bit for bit.
#pragma once

#include "core/calls.hpp"
#include "core/planner.hpp"

namespace flashmla::cuda {

/// Workers that one planner block can place; also the parts of an item that a decode kernel can merge.
inline constexpr int32_t kMaxWorkers = 256;

struct PlanScheduleParams {
  core::PlanShape shape;  // max_workers <= kMaxWorkers
  int32_t batch;
  int32_t q_tokens;
  int32_t num_row_tiles;  // of every request
  int32_t const* kv_len;  // [batch]
  void* schedule;         // core::schedule_bytes(max_workers)
};

void prepare_plan_schedule();
/// Enqueues one block. Throws core::Error.
void launch_plan_schedule(PlanScheduleParams const& params, flashmla_stream stream);

}  // namespace flashmla::cuda
