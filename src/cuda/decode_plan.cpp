// The plan of a dense decode on Hopper: make() does all that can fail or allocate, the rest only enqueues.
//
// update: one planner kernel. run: one decode kernel. Both under programmatic dependent launch. Nothing here synchronises
// but `fault`.
#include "cuda/decode_plan.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/chunks.hpp"
#include "core/parts.hpp"
#include "core/schedule.hpp"
#include "core/workspace.hpp"
#include "cuda/device_info.hpp"
#include "cuda/errors.hpp"
#include "cuda/kernel_table.hpp"
#include "cuda/kernels/dense_decode.hpp"
#include "cuda/kernels/plan_schedule.hpp"

namespace flashmla::cuda {
namespace {

// Costs of the planner in its own unit, a quarter of a 64-token tile: opening an item (Q load, pipeline fill, epilogue) is charged like
// two tiles, or where CTAs work in step, whose tiles take less time than they would alone, like four.
constexpr int32_t kTileCost = 4;
constexpr int32_t kPartCost = 8, kPartCostInStep = 16;
// Storing a part and merging half an item with others, twice: 20,000 cycles, seven tiles of 128 heads.
constexpr int32_t kMergeCost = 26;

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.6931471805599453094;

/// What the places of batch-invariant chunks follow from: most chunks of a request, most rows of a request and KV head.
struct ChunkPlaces {
  int32_t max_chunks, rows;
};
ChunkPlaces chunk_places(core::Problem const& problem) {
  auto const longest = static_cast<int32_t>(problem.max_kv_len);
  auto const most = static_cast<int32_t>(core::ceil_div(longest, problem.chunk_tokens));
  return {std::clamp(most, 1, core::kMaxChunks), static_cast<int32_t>(problem.max_q_tokens) * (problem.h_q / problem.h_kv)};
}

PartialLayout layout_of(core::Problem const& problem, core::PlanShape const& shape) {
  auto const latent = static_cast<size_t>(problem.format->latent);
  core::PlanShape wide = shape;  // the same for calls of few rows, so that cells have one place
  wide.tile_rows = std::max(shape.tile_rows, kCtaRows);
  if (!problem.batch_invariant) return partial_layout(wide, latent);
  ChunkPlaces const places = chunk_places(problem);
  int64_t const rows = places.max_chunks == 1 ? 0 : problem.max_batch * problem.h_kv * places.rows;  // below 2^31
  return partial_layout(static_cast<size_t>(rows) * static_cast<size_t>(places.max_chunks), latent);
}

int64_t most_rows(core::Problem const& problem) { return problem.max_q_tokens * (problem.h_q / problem.h_kv); }

DenseDecodeKernel choose_kernel(core::Problem const& problem, Calls calls, int32_t group, bool has_few_rows) {
  Paging const paging = choose_paging(problem.page_tokens);
  int32_t const latent = problem.format->latent;
  Roles const roles = choose_roles({problem.page_tokens, problem.h_kv}, calls, latent, group, has_few_rows);
  return {problem.q_dtype, problem.out_dtype, paging, calls, latent, roles};
}

/// Bytes of the cells that a plan's calls may leave partial results in.
size_t cell_bytes_of(core::Problem const& problem, core::PlanShape const& shape) {
  bool const may_be_few = shape.tile_rows <= kCtaRows && are_few_rows(problem.h_q / problem.h_kv, problem.h_kv);
  Roles const roles = choose_kernel(problem, Calls::kFew, 1, may_be_few).roles;
  return roles == Roles::kTransposed && !problem.batch_invariant ? cell_bytes(shape.max_workers) : 0;
}

class HopperDecodePlan final : public core::DecodePlan {
 public:
  HopperDecodePlan(core::Problem const& problem, KernelEntry const& kernel, DeviceInfo info, int32_t num_sms);

  [[nodiscard]] core::PlanShape shape() const override { return shape_; }
  [[nodiscard]] core::PlanShape shape_for(core::StepRows const& rows) const override {
    return call_shape(problem_, shape_, rows.batch, rows.is_ragged() ? 0 : rows.q_tokens);
  }
  [[nodiscard]] size_t schedule_bytes() const override { return core::schedule_bytes(shape_.max_workers); }
  [[nodiscard]] size_t workspace_bytes() const override { return layout_of(problem_, shape_).bytes + cell_bytes_of(problem_, shape_); }
  void update(core::LengthsCall const& call, void* schedule, flashmla_stream stream) const override;
  void reset(void* workspace, flashmla_stream stream) const override;
  void run(core::DecodeCall const& call, void const* schedule, void* workspace, flashmla_stream stream) const override;
  void fault(void* workspace, flashmla_stream stream, flashmla_fault& fault) const override;
  [[nodiscard]] std::string describe() const override;

 private:
  void check_stream(char const* operation, flashmla_stream stream) const;
  [[nodiscard]] DenseDecodeKernel decode_kernel(Calls calls, bool has_few_rows) const {
    return choose_kernel(problem_, calls, group_, has_few_rows);
  }
  /// Of ragged and batch-invariant calls.
  [[nodiscard]] bool any_has_few_rows() const { return most_rows(problem_) <= kTransposedRows; }
  [[nodiscard]] bool may_have_few_rows() const { return cell_bytes_of(problem_, shape_) > 0; }

  core::Problem problem_;
  KernelEntry kernel_;
  DeviceInfo device_;
  int32_t group_;  // CTAs a worker
  core::PlanShape shape_;
  bool has_peers_;  // other devices, whose streams a caller could mix up with ours
};

HopperDecodePlan::HopperDecodePlan(core::Problem const& problem, KernelEntry const& kernel, DeviceInfo info, int32_t num_sms)
    : problem_(problem),
      kernel_(kernel),
      device_(std::move(info)),
      group_(choose_group(most_rows(problem))),
      shape_(plan_shape(group_, num_sms, problem.h_kv)),
      has_peers_(num_devices() > 1) {
  DeviceGuard const guard("plan_create", device_.index);
  RelaxedCapture const relaxed;
  prepare_plan_schedule();
  for (Calls const calls : {Calls::kFew, Calls::kMany}) prepare_dense_decode(decode_kernel(calls, false));
  if (may_have_few_rows()) prepare_dense_decode(decode_kernel(Calls::kFew, true));
  prepare_dense_decode(decode_kernel(Calls::kAny, any_has_few_rows()));
}

// The legacy and per-thread default streams belong to whatever device is current, so they need no check.
void HopperDecodePlan::check_stream(char const* operation, flashmla_stream stream) const {
#if CUDART_VERSION >= 12080
  if (!has_peers_ || stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return;
  int index = device_.index;
  check_cuda(cudaStreamGetDevice(static_cast<cudaStream_t>(stream), &index), operation, "cudaStreamGetDevice");
  if (index != device_.index)
    core::fail_invalid(operation, "stream", "one of cuda:" + std::to_string(index),
                       "one of cuda:" + std::to_string(device_.index) + " (the plan's device)");
#else
  static_cast<void>(operation);
  static_cast<void>(stream);
#endif
}

void HopperDecodePlan::update(core::LengthsCall const& call, void* schedule, flashmla_stream stream) const {
  DeviceGuard const guard("plan_update", device_.index);
  check_stream("plan_update", stream);
  PlanScheduleParams params{};
  params.shape = call_shape(problem_, shape_, call.batch, call.q_offsets == nullptr ? call.q_tokens : 0);
  params.batch = call.batch;
  params.q_tokens = call.q_tokens;
  params.h_q = problem_.h_q;
  params.kv_len = call.kv_len;
  params.q_offsets = call.q_offsets;
  params.schedule = schedule;
  launch_plan_schedule(params, stream);
}

void HopperDecodePlan::reset(void* workspace, flashmla_stream stream) const {
  DeviceGuard const guard("plan_reset", device_.index);
  check_stream("plan_reset", stream);
  check_cuda(cudaMemsetAsync(workspace, 0, sizeof(core::WorkspaceHeader) + kExchangeFlagBytes, static_cast<cudaStream_t>(stream)),
             "plan_reset", "cudaMemsetAsync");
  size_t const cells = cell_bytes_of(problem_, shape_);
  if (cells == 0) return;
  check_cuda(
      cudaMemsetAsync(static_cast<char*>(workspace) + layout_of(problem_, shape_).bytes, 0xff, cells, static_cast<cudaStream_t>(stream)),
      "plan_reset", "cudaMemsetAsync");
}

void HopperDecodePlan::run(core::DecodeCall const& call, void const* schedule, void* workspace, flashmla_stream stream) const {
  if (call.batch == 0) return;
  DeviceGuard const guard("decode", device_.index);
  check_stream("decode", stream);
  bool const is_ragged = call.q_offsets != nullptr;
  core::PlanShape const shape = call_shape(problem_, shape_, call.batch, is_ragged ? 0 : call.q_tokens);
  DenseDecodeParams const params = decode_params(problem_, shape, call, {schedule, workspace});
  bool const is_uniform = !is_ragged && !problem_.batch_invariant, has_few_rows = shape.tile_rows < kCtaRows;
  Calls const calls = has_few_rows ? Calls::kFew : choose_calls(is_uniform, num_items(params), params.max_workers);
  launch_dense_decode(decode_kernel(calls, has_few_rows || (!is_uniform && any_has_few_rows())), params, stream);
}

void HopperDecodePlan::fault(void* workspace, flashmla_stream stream, flashmla_fault& fault) const {
  DeviceGuard const guard("plan_fault", device_.index);
  check_stream("plan_fault", stream);
  auto const cuda_stream = static_cast<cudaStream_t>(stream);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(cuda_stream, &capture), "plan_fault", "cudaStreamIsCapturing");
  if (capture != cudaStreamCaptureStatusNone)
    core::fail_invalid("plan_fault", "stream", "one that is being captured", "one that is not (it synchronises)");
  flashmla_fault found{};
  check_cuda(cudaMemcpyAsync(&found, workspace, sizeof(found), cudaMemcpyDeviceToHost, cuda_stream), "plan_fault", "cudaMemcpyAsync");
  check_cuda(cudaStreamSynchronize(cuda_stream), "plan_fault", "cudaStreamSynchronize");
  if (found.code != FLASHMLA_FAULT_NONE) {
    check_cuda(cudaMemsetAsync(workspace, 0, sizeof(found), cuda_stream), "plan_fault", "cudaMemsetAsync");
    check_cuda(cudaStreamSynchronize(cuda_stream), "plan_fault", "cudaStreamSynchronize");
  }
  fault = found;
}

std::string HopperDecodePlan::describe() const {
  std::ostringstream text;
  text << "kernel " << kernel_.name << " on cuda:" << device_.index << " " << device_.name << '\n'
       << "tile " << shape_.tile_rows << " rows x " << shape_.tile_tokens << " tokens, " << group_ << (group_ == 1 ? " CTA" : " CTAs")
       << " a worker\n"
       << "workers " << shape_.max_workers << " on " << shape_.max_workers * group_ << " of " << device_.num_sms << " multiprocessors\n"
       << "planner cost " << shape_.tile_cost << " a token tile, " << shape_.part_cost << " a part\n"
       << describe_dense_decode(decode_kernel(problem_.batch_invariant ? Calls::kAny : Calls::kMany, any_has_few_rows())) << '\n';
  if (may_have_few_rows())
    text << (any_has_few_rows() ? "short and ragged calls: " : "short calls of few rows: ")
         << describe_dense_decode(decode_kernel(Calls::kFew, true)) << '\n';
  if (problem_.batch_invariant)
    text << "batch-invariant chunks of " << problem_.chunk_tokens << " tokens, at most " << chunk_places(problem_).max_chunks
         << " a request\n";
  return text.str();
}

}  // namespace

core::PlanShape plan_shape(int32_t group, int32_t num_sms, int32_t kv_heads) {
  int32_t const workers = std::clamp(num_sms / group, 1, kMaxWorkers);
  return {kCtaRows * group, kTileTokens, workers, group == 1 ? kPartCost : kPartCostInStep, kTileCost, kv_heads, kMergeCost};
}

core::PlanShape call_shape(core::Problem const& problem, core::PlanShape const& wide, int32_t batch, int32_t q_tokens) {
  if (problem.batch_invariant || q_tokens == 0 || wide.tile_rows != kCtaRows) return wide;
  int64_t const rows = int64_t{q_tokens} * (problem.h_q / problem.h_kv), requests = int64_t{batch} * problem.h_kv;
  int64_t const items = int64_t{batch} * core::num_row_tiles(wide, q_tokens, problem.h_q);
  bool const is_few = is_short_call(items, wide.max_workers) && are_few_rows(rows, requests);
  if (choose_kernel(problem, Calls::kFew, 1, is_few).roles != Roles::kTransposed) return wide;
  core::PlanShape few = wide;
  few.tile_rows = static_cast<int32_t>(kTransposedRows);
  return few;
}

StartParams start_params(core::Problem const& problem, core::PlanShape const& shape, core::DecodeCall const& call, void const* schedule) {
  bool const is_ragged = call.q_offsets != nullptr;
  StartParams start{};
  start.schedule = schedule;
  start.kv_len = call.kv_len;
  start.page_table = call.page_table;
  start.page_table_stride = call.page_table_stride;
  start.length_limit = static_cast<int32_t>(core::length_limit(call.table_pages, problem.page_tokens, problem.max_kv_len));
  start.num_pages = static_cast<int32_t>(std::min<int64_t>(call.num_pages, std::numeric_limits<int32_t>::max()));
  start.page_tokens = problem.page_tokens;
  start.num_row_tiles = is_ragged ? 0 : core::num_row_tiles(shape, call.q_tokens, problem.h_q);
  start.num_rows = is_ragged ? 0 : call.q_tokens * (problem.h_q / problem.h_kv);
  start.batch = call.batch;
  start.q_tokens = is_ragged ? 0 : call.q_tokens;
  start.group = static_cast<int8_t>(std::max(shape.tile_rows / kCtaRows, 1));
  start.is_chunked = problem.batch_invariant ? 1 : 0;
  start.kv_heads = static_cast<int16_t>(problem.h_kv);
  return start;
}

DenseDecodeParams decode_params(core::Problem const& problem, core::PlanShape const& shape, core::DecodeCall const& call,
                                StepBuffers const& buffers) {
  bool const is_natural = problem.lse_base == FLASHMLA_LSE_NATURAL;
  float const infinity = std::numeric_limits<float>::infinity();
  char* const base = static_cast<char*>(buffers.workspace);
  DenseDecodeParams params{};
  params.start = start_params(problem, shape, call, buffers.schedule);
  params.call = call;
  params.heads = problem.h_q / problem.h_kv;
  params.max_workers = shape.max_workers;
  params.causal = problem.causal ? 1 : 0;
  params.scale_log2 = static_cast<float>(static_cast<double>(problem.scale) * kLog2E);
  params.lse_factor = is_natural ? static_cast<float>(kLn2) : 1.0F;
  params.empty_lse = problem.empty_row == FLASHMLA_EMPTY_LSE_MINUS_INF ? -infinity : infinity;
  params.heads_inverse = params.heads == 1 ? 0 : static_cast<uint32_t>(core::ceil_div(int64_t{1} << 32, params.heads));
  if (problem.batch_invariant) {
    ChunkPlaces const places = chunk_places(problem);
    params.chunk_tokens = problem.chunk_tokens;
    params.max_chunks = places.max_chunks;
    params.chunk_rows = places.rows;
  }
  params.workspace = buffers.workspace;
  PartialLayout const layout = layout_of(problem, shape);
  params.partial_rows = reinterpret_cast<PartialRow*>(base + layout.rows_offset);
  params.partial_values = base + layout.values_offset;
  params.cells = cell_bytes_of(problem, shape) > 0 ? base + layout.bytes : nullptr;
  params.rope_columns = problem.format->rope;
  return params;
}

std::unique_ptr<core::DecodePlan> make_decode_plan(core::Problem const& problem, core::Target const& target) {
  DeviceInfo info = require_device("plan_create", target.device.index);
  KernelEntry const& kernel = select_kernel(problem);
  int32_t const num_sms = target.num_sms > 0 ? std::min(target.num_sms, info.num_sms) : info.num_sms;
  return std::make_unique<HopperDecodePlan>(problem, kernel, std::move(info), num_sms);
}

}  // namespace flashmla::cuda
