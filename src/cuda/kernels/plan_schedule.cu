// Launcher of plan_schedule.
#include "cuda/kernels/plan_schedule.cuh"
#include "cuda/launch.hpp"

namespace flashmla::cuda {

void prepare_plan_schedule() {
  load_kernel("update", plan_schedule::plan_schedule_kernel<false>);
  load_kernel("update", plan_schedule::plan_schedule_kernel<true>);
}

void launch_plan_schedule(PlanScheduleParams const& params, flashmla_stream stream) {
  // A block of kMaxWorkers threads has the cheaper barriers, and serves batches of that size with a request a thread.
  unsigned const block = params.batch <= kMaxWorkers ? kMaxWorkers : plan_schedule::kMaxThreads;
  LaunchShape const shape{1, block, 0, static_cast<cudaStream_t>(stream)};
  PlanScheduleParams launched = params;
  bool const is_ragged = params.q_offsets != nullptr;
  launched.num_row_tiles = is_ragged ? 0 : core::num_row_tiles(params.shape, params.q_tokens, params.h_q);
  auto* const kernel = is_ragged ? plan_schedule::plan_schedule_kernel<true> : plan_schedule::plan_schedule_kernel<false>;
  launch_overlapped("update", kernel, shape, launched);
}

}  // namespace flashmla::cuda
