// Plans: the C ABI in terms of core::DecodePlan.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "api/backends.hpp"
#include "api/boundary.hpp"
#include "core/split.hpp"

using flashmla::api::guarded;
using flashmla::api::require;
namespace core = flashmla::core;

/// Immutable after creation. The sizes are kept so that a run asks no virtual function for them.
struct flashmla_plan {
  core::Problem problem;
  core::Target target;
  std::unique_ptr<core::DecodePlan> decode;
  core::BufferBytes bytes;
};

namespace {

void check_host_lengths(char const* operation, core::Problem const& problem, int32_t const* kv_len, int64_t batch) {
  if (batch < 0 || batch > problem.max_batch)
    core::fail_invalid(operation, "batch", std::to_string(batch), "0 to max_batch " + std::to_string(problem.max_batch));
  if (batch > 0) require(operation, "kv_len", kv_len);
  int64_t const limit = problem.max_kv_len > 0 ? problem.max_kv_len : INT32_MAX;
  for (int64_t i = 0; i < batch; ++i)
    if (kv_len[i] < 0 || kv_len[i] > limit)
      core::fail_invalid(operation, "kv_len[" + std::to_string(i) + "]", std::to_string(kv_len[i]),
                         "0 to " + std::to_string(limit) + " tokens");
}

/// On the device offsets are clamped; the host can say which is wrong.
void check_host_offsets(char const* operation, core::Problem const& problem, int32_t const* q_offsets, int64_t batch) {
  require(operation, "q_offsets", q_offsets);
  if (q_offsets[0] < 0) core::fail_invalid(operation, "q_offsets[0]", std::to_string(q_offsets[0]), "at least 0");
  for (int64_t i = 1; i <= batch; ++i) {
    int64_t const before = q_offsets[i - 1], tokens = q_offsets[i] - before;
    if (tokens < 0 || tokens > problem.max_q_tokens)
      core::fail_invalid(operation, "q_offsets[" + std::to_string(i) + "]", std::to_string(q_offsets[i]),
                         std::to_string(before) + " to " + std::to_string(before + problem.max_q_tokens) + " (at most max_q_tokens " +
                             std::to_string(problem.max_q_tokens) + " a request)");
  }
}

/// Where parts go, and for how many there is room.
struct PartList {
  flashmla_part* parts;
  int64_t* count;
};

void list_parts(char const* operation, flashmla_plan const& plan, core::StepRows const& rows, int32_t const* kv_len, PartList const& list) {
  core::PlanShape const shape = plan.decode->shape_for(rows);
  std::vector<char> schedule(core::schedule_bytes(shape.max_workers));
  core::make_schedule(shape, rows, kv_len, schedule.data());
  std::vector<flashmla_part> const made = core::list_parts(shape, rows, kv_len, schedule.data());
  int64_t const capacity = *list.count, needed = static_cast<int64_t>(made.size());
  if (capacity < 0) core::fail_invalid(operation, "count", std::to_string(capacity), "at least 0");
  if (capacity >= needed && needed > 0) require(operation, "parts", list.parts);
  *list.count = needed;
  if (capacity < needed) core::fail_invalid(operation, "count", std::to_string(capacity), "at least " + std::to_string(needed) + " parts");
  std::copy(made.begin(), made.end(), list.parts);
}

}  // namespace

extern "C" {

flashmla_status flashmla_plan_create(flashmla_problem const* problem, flashmla_target const* target, flashmla_plan** plan) {
  constexpr char kOperation[] = "plan_create";
  return guarded(kOperation, [&] {
    require(kOperation, "problem", problem);
    require(kOperation, "target", target);
    require(kOperation, "plan", plan);
    auto made = std::make_unique<flashmla_plan>();
    made->problem = core::validate(*problem);
    made->target = core::validate(*target);
    made->decode = flashmla::api::backend_for(kOperation, made->target.device).make_plan(made->problem, made->target);
    made->bytes = {made->decode->schedule_bytes(), made->decode->workspace_bytes()};
    *plan = made.release();
  });
}

void flashmla_plan_destroy(flashmla_plan* plan) { delete plan; }

size_t flashmla_plan_schedule_bytes(flashmla_plan const* plan) { return plan == nullptr ? 0 : plan->bytes.schedule; }

size_t flashmla_plan_workspace_bytes(flashmla_plan const* plan) { return plan == nullptr ? 0 : plan->bytes.workspace; }

flashmla_status flashmla_plan_update(flashmla_plan const* plan, flashmla_lengths const* lengths, flashmla_view const* schedule,
                                     flashmla_stream stream) {
  constexpr char kOperation[] = "plan_update";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "lengths", lengths);
    require(kOperation, "schedule", schedule);
    flashmla_device const device = plan->target.device;
    core::LengthsCall const call = core::validate(plan->problem, device, *lengths);
    plan->decode->update(call, core::validate_update_buffer(device, *lengths, *schedule, plan->bytes.schedule), stream);
  });
}

flashmla_status flashmla_plan_reset(flashmla_plan const* plan, flashmla_view const* workspace, flashmla_stream stream) {
  constexpr char kOperation[] = "plan_reset";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "workspace", workspace);
    plan->decode->reset(core::validate_buffer(kOperation, "workspace", *workspace, plan->bytes.workspace, plan->target.device), stream);
  });
}

flashmla_status flashmla_plan_run(flashmla_plan const* plan, flashmla_decode_args const* args, flashmla_view const* schedule,
                                  flashmla_view const* workspace, flashmla_stream stream) {
  constexpr char kOperation[] = "decode";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "args", args);
    require(kOperation, "schedule", schedule);
    require(kOperation, "workspace", workspace);
    flashmla_device const device = plan->target.device;
    core::DecodeCall const call = core::validate(plan->problem, device, *args);
    core::RunBuffers const buffers = core::validate_run_buffers(device, *args, *schedule, *workspace, plan->bytes);
    if (call.batch > 0) plan->decode->run(call, buffers.schedule, buffers.workspace, stream);
  });
}

flashmla_status flashmla_plan_fault(flashmla_plan const* plan, flashmla_view const* workspace, flashmla_stream stream,
                                    flashmla_fault* fault) {
  constexpr char kOperation[] = "plan_fault";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "workspace", workspace);
    require(kOperation, "fault", fault);
    flashmla_fault found{};
    plan->decode->fault(core::validate_buffer(kOperation, "workspace", *workspace, plan->bytes.workspace, plan->target.device), stream,
                        found);
    *fault = found;
  });
}

size_t flashmla_plan_describe(flashmla_plan const* plan, char* text, size_t capacity) {
  constexpr char kOperation[] = "plan_describe";
  size_t needed = 0;
  guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    std::string const description = plan->decode->describe();
    needed = description.size() + 1;
    if (text == nullptr || capacity == 0) return;
    size_t const length = std::min(description.size(), capacity - 1);
    std::memcpy(text, description.data(), length);
    text[length] = '\0';
  });
  return needed;
}

flashmla_status flashmla_plan_parts(flashmla_plan const* plan, int32_t const* kv_len, int64_t batch, int32_t q_tokens, flashmla_part* parts,
                                    int64_t* count) {
  constexpr char kOperation[] = "plan_parts";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "count", count);
    core::Problem const& problem = plan->problem;
    int32_t const tokens = q_tokens == 0 ? 1 : q_tokens;
    if (tokens < 1 || tokens > problem.max_q_tokens)
      core::fail_invalid(kOperation, "q_tokens", std::to_string(tokens), "1 to max_q_tokens " + std::to_string(problem.max_q_tokens));
    check_host_lengths(kOperation, problem, kv_len, batch);
    list_parts(kOperation, *plan, {static_cast<int32_t>(batch), tokens, problem.h_q}, kv_len, {parts, count});
  });
}

flashmla_status flashmla_plan_parts_ragged(flashmla_plan const* plan, int32_t const* kv_len, int32_t const* q_offsets, int64_t batch,
                                           flashmla_part* parts, int64_t* count) {
  constexpr char kOperation[] = "plan_parts_ragged";
  return guarded(kOperation, [&] {
    require(kOperation, "plan", plan);
    require(kOperation, "count", count);
    core::Problem const& problem = plan->problem;
    check_host_lengths(kOperation, problem, kv_len, batch);
    check_host_offsets(kOperation, problem, q_offsets, batch);
    core::StepRows const rows{static_cast<int32_t>(batch), static_cast<int32_t>(problem.max_q_tokens), problem.h_q, q_offsets};
    list_parts(kOperation, *plan, rows, kv_len, {parts, count});
  });
}

}  // extern "C"
