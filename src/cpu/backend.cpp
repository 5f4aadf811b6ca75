// The CPU backend: what it accepts, and the operations that need no plan.
#include "cpu/backend.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <system_error>

#include "core/error.hpp"
#include "core/names.hpp"
#include "cpu/copy_page.hpp"
#include "cpu/decode_plan.hpp"
#include "cpu/merge_row.hpp"
#include "cpu/storage.hpp"
#include "cpu/system.hpp"

namespace flashmla::cpu {

namespace {

constexpr char kMake[] = "plan_create";

void check_supported(core::Problem const& problem) {
  core::KvFormat const& format = *problem.format;
  bool const is_plain = format.dtype == FLASHMLA_BF16 || format.dtype == FLASHMLA_FP16 || format.dtype == FLASHMLA_FP32;
  if (!format.built || !is_plain) core::fail_unsupported(kMake, "kv_format", format.name, core::built_formats() + " (not built yet)");
  if (problem.topk != 0) core::fail_unsupported(kMake, "topk", std::to_string(problem.topk), "0 (dense attention over the page table)");
  if (problem.extra_format != nullptr)
    core::fail_unsupported(kMake, "extra_kv_format", problem.extra_format->name, "no extra cache (attend to each, then flashmla_merge)");
}

std::shared_ptr<ThreadPool> pool_of(char const* operation, int32_t threads) {
  try {
    return ThreadPool::shared(threads);
  } catch (std::system_error const& error) {
    throw core::Error(FLASHMLA_OUT_OF_MEMORY,
                      std::string(operation) + ": num_threads: got " + std::to_string(threads) + ", expected fewer (" + error.what() + ")");
  }
}

/// Copies the tokens whose slots are good.
void append_range(core::AppendCall const& call, int64_t begin, int64_t end) {
  int64_t const elem_bytes = static_cast<int64_t>(core::dtype_bytes(call.format->dtype));
  size_t const latent_bytes = static_cast<size_t>(call.format->latent * elem_bytes),
               rope_bytes = static_cast<size_t>(call.format->rope * elem_bytes);
  for (int64_t token = begin; token < end; ++token) {
    int64_t const slot = call.slot_mapping[token];
    if (slot < 0 || slot >= call.num_pages * call.page_tokens) continue;
    int64_t const at = slot / call.page_tokens * call.page_stride + slot % call.page_tokens * call.token_stride;
    char* const target = static_cast<char*>(call.cache) + at * elem_bytes;
    std::memcpy(target, static_cast<char const*>(call.ckv) + token * call.ckv_token_stride * elem_bytes, latent_bytes);
    std::memcpy(target + latent_bytes, static_cast<char const*>(call.kpe) + token * call.kpe_token_stride * elem_bytes, rope_bytes);
  }
}

/// Records the first slot that is neither -1 nor in the cache.
void record_bad_slot(core::AppendCall const& call) {
  if (call.fault == nullptr || call.fault->code != FLASHMLA_FAULT_NONE) return;
  for (int64_t token = 0; token < call.tokens; ++token) {
    int64_t const slot = call.slot_mapping[token];
    if (slot >= -1 && slot < call.num_pages * call.page_tokens) continue;
    using Limits = std::numeric_limits<int32_t>;
    int32_t const value = static_cast<int32_t>(std::clamp<int64_t>(slot, Limits::min(), Limits::max()));
    *call.fault = {FLASHMLA_FAULT_SLOT, 0, static_cast<int32_t>(token), value, {}};
    return;
  }
}

void merge_one(Kernels const& kernels, core::MergeCall const& call, int64_t token, int64_t head) {
  double const to_log2 = call.lse_base == FLASHMLA_LSE_BASE_2 ? 1.0 : std::numbers::log2e;
  int64_t const in_bytes = static_cast<int64_t>(core::dtype_bytes(call.partial_dtype)),
                out_bytes = static_cast<int64_t>(core::dtype_bytes(call.out_dtype));
  int64_t const* const ls = call.partial_lse_stride;
  int64_t const* const os = call.partial_out_stride;
  auto const part = [&](int64_t i) {
    double const lse = call.partial_lse[i * ls[0] + token * ls[1] + head * ls[2]];
    return PartialRow{lse * to_log2, static_cast<char const*>(call.partial_out) + (i * os[0] + token * os[1] + head * os[2]) * in_bytes};
  };
  char* const out = static_cast<char*>(call.out) + (token * call.out_stride[0] + head * call.out_stride[1]) * out_bytes;
  double const lse_log2 = merge_row(kernels, call.num_parts, storage_of(call.partial_dtype), part,
                                    {out, storage_of(call.out_dtype), call.v_dim, sink_log2(call.sink, head)});
  if (call.lse == nullptr) return;
  float const infinity = std::numeric_limits<float>::infinity();
  float const empty = call.empty_row == FLASHMLA_EMPTY_LSE_PLUS_INF ? infinity : -infinity;
  call.lse[token * call.lse_stride[0] + head * call.lse_stride[1]] = lse_log2 == -infinity ? empty : static_cast<float>(lse_log2 / to_log2);
}

class Backend final : public core::Backend {
 public:
  [[nodiscard]] flashmla_device_kind kind() const override { return FLASHMLA_CPU; }

  [[nodiscard]] std::vector<core::DeviceRow> devices() const override {
    core::DeviceRow row;
    row.device = {FLASHMLA_CPU, 0};
    row.usable = true;
    row.num_units = usable_cores();
    row.capability = choose_isa(FLASHMLA_ISA_AUTO).isa;
    row.memory_bytes = memory_bytes();
    row.name = cpu_name();
    return {row};
  }

  [[nodiscard]] std::vector<core::KernelRow> kernels() const override { return kernel_rows(); }

  [[nodiscard]] std::unique_ptr<core::DecodePlan> make_plan(core::Problem const& problem, core::Target const& target) const override {
    check_supported(problem);
    IsaRow const& row = choose_isa(target.isa);
    int32_t const threads = target.num_threads > 0 ? target.num_threads : usable_cores();
    bool const has_executor = target.executor.parallel_for != nullptr;
    return std::make_unique<DecodePlan>(problem, row,
                                        has_executor ? Executor(target.executor, threads) : Executor(pool_of(kMake, threads)));
  }

  void merge(core::MergeCall const& call, flashmla_stream /*stream*/) const override {
    constexpr int64_t kRows = 16;  // of a task
    int64_t const rows = call.tokens * call.heads;
    Kernels const& kernels = *choose_isa(FLASHMLA_ISA_AUTO).kernels;
    for_chunks("merge", rows, kRows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) merge_one(kernels, call, row / call.heads, row % call.heads);
    });
  }

  void append(core::AppendCall const& call, flashmla_stream /*stream*/) const override {
    constexpr int64_t kTokens = 64;  // of a task
    record_bad_slot(call);
    for_chunks("append", call.tokens, kTokens, [&](int64_t begin, int64_t end) { append_range(call, begin, end); });
  }

  void copy_pages(core::CopyPagesCall const& call, flashmla_stream /*stream*/) const override {
    constexpr int64_t kPages = 4;  // of a task
    for_chunks("copy_pages", call.num_caches * call.num_copies, kPages, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) copy_page(call, i / call.num_copies, i % call.num_copies);
    });
  }

 private:
  /// function(begin, end) over [0, count) in chunks, on as many threads as that is worth.
  template <class Function>
  void for_chunks(char const* operation, int64_t count, int64_t chunk, Function const& function) const {
    int64_t const wanted = core::ceil_div(count, chunk);
    if (wanted <= 1) return function(0, count);
    int32_t const tasks = static_cast<int32_t>(std::min<int64_t>(wanted, 1 << 20));
    int64_t const step = core::ceil_div(count, tasks);
    std::call_once(pool_made_, [&] { pool_ = pool_of(operation, usable_cores()); });
    pool_->run(tasks, [&](int32_t task) { function(std::min(count, task * step), std::min(count, (task + 1) * step)); });
  }

  mutable std::once_flag pool_made_;
  mutable std::shared_ptr<ThreadPool> pool_;
};

}  // namespace

std::unique_ptr<core::Backend> make_backend() { return std::make_unique<Backend>(); }

}  // namespace flashmla::cpu
