#include "cpu/decode_plan.hpp"

#include <algorithm>
#include <cstring>

#include "core/names.hpp"
#include "core/parts.hpp"
#include "core/split.hpp"
#include "core/workspace.hpp"
#include "cpu/decode_run.hpp"

namespace flashmla::cpu {

namespace {

/// Rows whose accumulators (2 KiB each) and queries leave room for the tokens of a tile in a 1 MiB L2.
constexpr int64_t kMaxTileRows = 256;

int32_t step_tokens(core::Problem const& problem, IsaRow const& row) {
  Kernels const& kernels = *row.kernels;
  int32_t const wide = problem.format->dtype == FLASHMLA_BF16 ? kernels.wide_bf16.step_tokens : kernels.wide_fp32.step_tokens;
  return std::max(kernels.narrow.step_tokens, wide);
}

/// The first fault since `fault` was last called stays.
void record(void* workspace, flashmla_fault const& fault) {
  flashmla_fault& kept = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  if (kept.code == FLASHMLA_FAULT_NONE) kept = fault;
}

}  // namespace

core::PlanShape plan_shape(core::Problem const& problem, int32_t threads) {
  int64_t const rows = problem.h_q * problem.max_q_tokens;
  int64_t const tiles = core::ceil_div(rows, kMaxTileRows);
  core::PlanShape shape{};
  shape.tile_rows = static_cast<int32_t>(core::ceil_div(rows, tiles));
  shape.tile_tokens = kTileTokens;
  shape.max_workers = threads;
  // Packing the queries and writing the rows of an item costs about as much as half a token tile.
  shape.part_cost = 1;
  shape.tile_cost = 2;
  return shape;
}

DecodePlan::DecodePlan(core::Problem const& problem, IsaRow const& row, Executor executor)
    : problem_(problem),
      row_(row),
      executor_(std::move(executor)),
      shape_(plan_shape(problem, executor_.num_threads())),
      layout_(problem, shape_, step_tokens(problem, row)) {}

size_t DecodePlan::schedule_bytes() const { return core::schedule_bytes(shape_.max_workers); }

void DecodePlan::update(core::LengthsCall const& call, void* schedule, flashmla_stream /*stream*/) const {
  core::make_schedule(shape_, {call.batch, call.q_tokens, problem_.h_q, call.q_offsets}, call.kv_len, schedule);
}

void DecodePlan::reset(void* workspace, flashmla_stream /*stream*/) const { std::memset(workspace, 0, sizeof(core::WorkspaceHeader)); }

void DecodePlan::run(core::DecodeCall const& call, void const* schedule, void* workspace, flashmla_stream /*stream*/) const {
  core::ScheduleView const view = core::schedule_view(const_cast<void*>(schedule), shape_.max_workers);  // only read below
  core::StepRows const rows{call.batch, call.q_tokens, problem_.h_q, call.q_offsets};
  if (!core::schedule_matches(*view.header, shape_, rows) || !core::is_followable(shape_, view)) {
    return record(workspace, {FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, view.header->batch, {}});
  }
  RunContext const run{problem_, shape_, call, view, *row_.kernels, layout_, workspace};
  flashmla_fault const lengths_fault = check_lengths(run);
  if (lengths_fault.code != FLASHMLA_FAULT_NONE) record(workspace, lengths_fault);
  int32_t const workers = view.header->num_workers;
  executor_.run(workers, [&run](int32_t worker) { run_worker(run, worker); });
  executor_.run(num_merge_tasks(run), [&run](int32_t task) { run_merge_task(run, task); });
  for (int32_t worker = 0; worker < workers; ++worker) {
    flashmla_fault const page_fault = worker_fault(run, worker);
    if (page_fault.code != FLASHMLA_FAULT_NONE) record(workspace, page_fault);
  }
}

void DecodePlan::fault(void* workspace, flashmla_stream /*stream*/, flashmla_fault& fault) const {
  flashmla_fault& kept = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  fault = kept;
  kept = {};
}

std::string DecodePlan::describe() const {
  return std::string(row_.name) + ": " + std::to_string(executor_.num_threads()) +
         (executor_.is_callers() ? " threads of the caller" : " threads") + ", row tiles of " + std::to_string(shape_.tile_rows) +
         " rows, token tiles of " + std::to_string(shape_.tile_tokens) + " tokens, workspace " + std::to_string(workspace_bytes()) +
         " bytes" + (problem_.batch_invariant ? ", batch-invariant chunks of " + std::to_string(problem_.chunk_tokens) + " tokens" : "");
}

}  // namespace flashmla::cpu
