// Problem and target: fill in every default, refuse what no backend could mean or has.
#include "core/problem.hpp"

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>

#include "core/chunks.hpp"
#include "core/names.hpp"
#include "core/struct_check.hpp"

namespace flashmla::core {

namespace {

constexpr char kOperation[] = "plan_create";
constexpr int64_t kInt32Max = INT32_MAX;

[[noreturn]] void invalid(char const* argument, std::string const& got, std::string const& expected) {
  fail_invalid(kOperation, argument, got, expected);
}
[[noreturn]] void unsupported(char const* argument, std::string const& got, std::string const& nearest) {
  fail_unsupported(kOperation, argument, got, nearest);
}

void check_range(char const* argument, int64_t value, int64_t low, int64_t high, char const* reason) {
  if (value >= low && value <= high) return;
  std::string const tail = std::string(" (") + reason + ")";
  if (value < low) invalid(argument, std::to_string(value), "at least " + std::to_string(low) + tail);
  invalid(argument, std::to_string(value), "at most " + std::to_string(high) + tail);
}

KvFormat const& checked_format(int32_t id) {
  KvFormat const* const format = find_kv_format(id);
  if (id == FLASHMLA_KV_NONE) invalid("kv_format", "NONE", "a flashmla_kv_format (required; it is never inferred)");
  if (format == nullptr) invalid("kv_format", std::to_string(id), "a flashmla_kv_format");
  if (!format->built) unsupported("kv_format", format->name, built_formats() + " (not built yet)");
  return *format;
}

void check_heads(flashmla_problem const& problem, Problem& out) {
  check_range("h_q", problem.h_q, 1, kInt32Max, "query heads; required");
  if (problem.h_q > 128) unsupported("h_q", std::to_string(problem.h_q), "at most 128 (query heads of one call)");
  out.h_q = problem.h_q;
  out.h_kv = problem.h_kv == 0 ? 1 : problem.h_kv;
  check_range("h_kv", out.h_kv, 1, out.h_q, "KV heads; not more than h_q");
  if (out.h_q % out.h_kv != 0) invalid("h_kv", std::to_string(out.h_kv), "a divisor of h_q " + std::to_string(out.h_q));
}

void check_dtypes(flashmla_problem const& problem, Problem& out) {
  int32_t const q = problem.q_dtype == FLASHMLA_DTYPE_NONE ? out.format->dtype : problem.q_dtype;
  if (q != FLASHMLA_BF16 && q != FLASHMLA_FP16 && q != FLASHMLA_FP32) invalid("q_dtype", dtype_text(q), "BF16, FP16 or FP32");
  if (q != out.format->dtype)
    unsupported("q_dtype", dtype_name(q), std::string(dtype_name(out.format->dtype)) + " (that of the cache, " + out.format->name + ")");
  int32_t const o = problem.out_dtype == FLASHMLA_DTYPE_NONE ? q : problem.out_dtype;
  if (o != FLASHMLA_BF16 && o != FLASHMLA_FP16 && o != FLASHMLA_FP32) invalid("out_dtype", dtype_text(o), "BF16, FP16 or FP32");
  out.q_dtype = static_cast<flashmla_dtype>(q);
  out.out_dtype = static_cast<flashmla_dtype>(o);
}

void check_options(flashmla_problem const& problem, Problem& out) {
  check_range("lse_base", problem.lse_base, FLASHMLA_LSE_NATURAL, FLASHMLA_LSE_BASE_2, "a flashmla_lse_base");
  check_range("lse_layout", problem.lse_layout, FLASHMLA_LSE_BATCH_HEADS_TOKENS, FLASHMLA_LSE_TOKENS_HEADS, "a flashmla_lse_layout");
  check_range("empty_row", problem.empty_row, FLASHMLA_EMPTY_LSE_PLUS_INF, FLASHMLA_EMPTY_LSE_MINUS_INF, "a flashmla_empty_row");
  out.lse_base = static_cast<flashmla_lse_base>(problem.lse_base);
  out.lse_layout = static_cast<flashmla_lse_layout>(problem.lse_layout);
  out.empty_row = static_cast<flashmla_empty_row>(problem.empty_row);
  out.causal = (problem.flags & FLASHMLA_PROBLEM_CAUSAL) != 0;
  out.batch_invariant = (problem.flags & FLASHMLA_PROBLEM_BATCH_INVARIANT) != 0;
  check_range("chunk_tokens", problem.chunk_tokens, 0, kInt32Max, "tokens");
  if (!out.batch_invariant && problem.chunk_tokens != 0)
    invalid("chunk_tokens", std::to_string(problem.chunk_tokens), "0 (it has a meaning with FLASHMLA_PROBLEM_BATCH_INVARIANT only)");
  if (problem.chunk_tokens % kChunkUnit != 0)
    invalid("chunk_tokens", std::to_string(problem.chunk_tokens), "a multiple of " + std::to_string(kChunkUnit));
  if (out.batch_invariant) out.chunk_tokens = problem.chunk_tokens == 0 ? default_chunk_tokens(out.h_q) : problem.chunk_tokens;
}

void check_scale(flashmla_problem const& problem, Problem& out) {
  bool const has_scale = (problem.flags & FLASHMLA_PROBLEM_HAS_SCALE) != 0;
  char got[64];
  std::snprintf(got, sizeof got, "%g", static_cast<double>(problem.scale));
  if (!has_scale && !(problem.scale == 0))
    invalid("scale", got, "0 without FLASHMLA_PROBLEM_HAS_SCALE (set the flag, so that 0 can be told from absent)");
  if (has_scale && !(std::isfinite(problem.scale) && problem.scale >= 0)) invalid("scale", got, "a finite number >= 0");
  out.scale = has_scale ? problem.scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(out.format->qk_dim)));
}

void check_sparse(flashmla_problem const& problem) {
  check_range("topk", problem.topk, 0, kInt32Max, "indices a query token");
  check_range("extra_topk", problem.extra_topk, 0, kInt32Max, "indices a query token");
  check_range("extra_page_tokens", problem.extra_page_tokens, 0, kInt32Max, "tokens a page");
  if (problem.extra_kv_format != FLASHMLA_KV_NONE && find_kv_format(problem.extra_kv_format) == nullptr)
    invalid("extra_kv_format", std::to_string(problem.extra_kv_format), "a flashmla_kv_format");
  if (problem.topk != 0) unsupported("topk", std::to_string(problem.topk), "0 (dense attention over the page table)");
  char const* const kOneSource = "0 (one cache; attend to each and combine with flashmla_merge)";
  if (problem.extra_kv_format != FLASHMLA_KV_NONE)
    unsupported("extra_kv_format", find_kv_format(problem.extra_kv_format)->name, kOneSource);
  if (problem.extra_topk != 0) unsupported("extra_topk", std::to_string(problem.extra_topk), kOneSource);
  if (problem.extra_page_tokens != 0) invalid("extra_page_tokens", std::to_string(problem.extra_page_tokens), "0 (no extra cache)");
}

void check_maxima(flashmla_problem const& problem, Problem& out) {
  out.max_q_tokens = problem.max_q_tokens == 0 ? 1 : problem.max_q_tokens;
  out.max_batch = problem.max_batch;
  out.max_kv_len = problem.max_kv_len;
  out.max_total_kv_tokens = problem.max_total_kv_tokens;
  check_range("max_batch", out.max_batch, 1, kInt32Max, "requests a call; required");
  check_range("max_q_tokens", out.max_q_tokens, 1, kInt32Max, "query tokens a request");
  check_range("max_kv_len", out.max_kv_len, 0, kInt32Max, "lengths are int32");
  check_range("max_total_kv_tokens", out.max_total_kv_tokens, 0, INT64_MAX, "sum over a batch");
  int64_t const tokens = out.max_batch * out.max_q_tokens;  // below 2^62
  if (tokens > kInt32Max / out.h_q)
    invalid("max_q_tokens", std::to_string(out.max_q_tokens) + " with max_batch " + std::to_string(out.max_batch),
            "max_batch * max_q_tokens of at most " + std::to_string(kInt32Max / out.h_q) + " (h_q " + std::to_string(out.h_q) +
                "; rows are counted in 32 bits)");
}

flashmla_executor checked_executor(flashmla_executor const& executor, bool is_cpu) {
  if (!is_cpu) invalid("executor", "one", "none (threads are the CPU's)");
  check_struct_size(kOperation, "flashmla_executor", executor);
  check_flags(kOperation, executor.flags, 0, "executor.flags");
  if (executor.parallel_for == nullptr) invalid("executor.parallel_for", "null", "a flashmla_parallel_for");
  return executor;
}

}  // namespace

Problem validate(flashmla_problem const& problem) {
  check_struct_size(kOperation, "flashmla_problem", problem);
  check_flags(kOperation, problem.flags, FLASHMLA_PROBLEM_CAUSAL | FLASHMLA_PROBLEM_HAS_SCALE | FLASHMLA_PROBLEM_BATCH_INVARIANT);
  check_reserved(kOperation, problem.reserved);
  Problem out;
  check_heads(problem, out);
  out.format = &checked_format(problem.kv_format);
  out.page_tokens = problem.page_tokens == 0 ? 64 : problem.page_tokens;
  check_range("page_tokens", out.page_tokens, 1, kInt32Max, "tokens a page");
  check_dtypes(problem, out);
  check_maxima(problem, out);
  check_scale(problem, out);
  check_options(problem, out);
  check_sparse(problem);
  return out;
}

Target validate(flashmla_target const& given) {
  flashmla_target const target = known_prefix(kOperation, "flashmla_target", given, offsetof(flashmla_target, executor));
  check_flags(kOperation, target.flags, 0, "target.flags");
  check_reserved(kOperation, target.reserved, "target.reserved");
  bool const is_cpu = target.device.kind == FLASHMLA_CPU;
  check_range("device.kind", target.device.kind, FLASHMLA_CPU, FLASHMLA_CUDA, "a flashmla_device_kind");
  check_range("device.index", target.device.index, 0, is_cpu ? 0 : kInt32Max, is_cpu ? "there is one CPU" : "a CUDA ordinal");
  check_range("isa", target.isa, FLASHMLA_ISA_AUTO, is_cpu ? FLASHMLA_ISA_AMX_BF16 : FLASHMLA_ISA_AUTO,
              is_cpu ? "a flashmla_isa" : "the instruction sets are the CPU's");
  check_range("num_threads", target.num_threads, 0, is_cpu ? 4096 : 0, is_cpu ? "threads" : "threads are the CPU's");
  check_range("num_sms", target.num_sms, 0, is_cpu ? 0 : kInt32Max, is_cpu ? "multiprocessors are CUDA's" : "multiprocessors");
  Target out;
  out.device = target.device;
  out.isa = static_cast<flashmla_isa>(target.isa);
  out.num_threads = target.num_threads;
  out.num_sms = target.num_sms;
  if (target.executor != nullptr) out.executor = checked_executor(*target.executor, is_cpu);
  return out;
}

}  // namespace flashmla::core
