// One run of a decode plan: workers over their parts, then the merge of items that several workers shared.
#pragma once

#include "core/calls.hpp"
#include "core/parts.hpp"
#include "core/schedule.hpp"
#include "cpu/generic/tasks.hpp"
#include "cpu/worker_memory.hpp"

namespace flashmla::cpu {

/// Everything a run reads; shared by its workers.
struct RunContext {
  core::Problem const& problem;
  core::PlanShape const& shape;
  core::DecodeCall const& call;
  core::ScheduleView schedule;
  Kernels const& kernels;
  WorkerLayout const& layout;
  void* workspace;
};

/// The first length that had to be masked; code FLASHMLA_FAULT_NONE if all are good.
flashmla_fault check_lengths(RunContext const& run);

/// Computes the parts of one worker: rows of whole items go to `out`, others to partial results in the workspace.
void run_worker(RunContext const& run, int32_t worker);

/// The first bad page id that this worker met.
flashmla_fault worker_fault(RunContext const& run, int32_t worker);

/// Rows of a row tile that one task of the merge combines.
inline constexpr int32_t kMergeRows = 8;
int32_t num_merge_tasks(RunContext const& run);
void run_merge_task(RunContext const& run, int32_t task);

}  // namespace flashmla::cpu
