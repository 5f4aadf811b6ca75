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
  int32_t q_tokens;  // of every request, or with q_offsets the most that one may have
  int32_t h_q;
  int32_t const* kv_len;      // [batch]
  int32_t const* q_offsets;   // [batch + 1], or null: uniform
  void* schedule;             // core::schedule_bytes(max_workers)
  int32_t num_row_tiles = 0;  // set by the launch: of every request, 0 with q_offsets
};

void prepare_plan_schedule();
/// Enqueues one block. Throws core::Error.
void launch_plan_schedule(PlanScheduleParams const& params, flashmla_stream stream);

}  // namespace flashmla::cuda
