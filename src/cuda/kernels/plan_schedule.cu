// Launcher of plan_schedule.
#include "cuda/kernels/plan_schedule.cuh"
#include "cuda/launch.hpp"

namespace flashmla::cuda {

void prepare_plan_schedule() { load_kernel("update", plan_schedule::plan_schedule_kernel); }

void launch_plan_schedule(PlanScheduleParams const& params, flashmla_stream stream) {
  // A block of kMaxWorkers threads has the cheaper barriers, and serves batches of that size with a request a thread.
  unsigned const block = params.batch <= kMaxWorkers ? kMaxWorkers : plan_schedule::kMaxThreads;
  launch_overlapped("update", plan_schedule::plan_schedule_kernel, {1, block, 0, static_cast<cudaStream_t>(stream)}, params);
}

}  // namespace flashmla::cuda
