// Which kernel serves a problem, and what to say when none does.
#include "cuda/kernel_table.hpp"

#include "core/error.hpp"
#include "core/names.hpp"

namespace flashmla::cuda {
namespace {

constexpr char kOperation[] = "plan_create";
constexpr int64_t kMaxQTokens = 128;

bool accepts(KernelEntry const& kernel, core::Problem const& problem) {
  return problem.format->id == kernel.format && problem.q_dtype == problem.format->dtype && problem.out_dtype == kernel.out_dtype &&
         problem.h_q <= 128 && problem.max_q_tokens <= kMaxQTokens && problem.topk == 0 && problem.extra_format == nullptr &&
         problem.extra_topk == 0 && (!problem.batch_invariant || problem.max_kv_len > 0);
}

void require(bool holds, char const* argument, std::string const& got, char const* nearest) {
  if (!holds) core::fail_unsupported(kOperation, argument, got, nearest);
}

// One sentence for each condition of `accepts`, about the first that does not hold.
void explain(core::Problem const& problem) {
  require(problem.topk == 0, "topk", std::to_string(problem.topk), "0 (dense attention over a page table)");
  require(problem.extra_format == nullptr && problem.extra_topk == 0, "extra_kv_format", "one", "none (one cache)");
  require(core::is_served_on_gpu(*problem.format), "kv_format", problem.format->name, "BF16_576, FP16_576, BF16_320 or BF16_288");
  require(problem.q_dtype == problem.format->dtype, "q_dtype", core::dtype_name(problem.q_dtype), "the dtype of the cache");
  require(problem.h_q <= 128, "h_q", std::to_string(problem.h_q), "at most 128 query heads");
  require(problem.max_q_tokens <= kMaxQTokens, "max_q_tokens", std::to_string(problem.max_q_tokens),
          "at most 128 on a GPU, or any on the CPU");
  require(!problem.batch_invariant || problem.max_kv_len > 0, "max_kv_len", "0 (unbounded) with FLASHMLA_PROBLEM_BATCH_INVARIANT",
          "a bound on a GPU (every chunk of a request has a place in the workspace)");
  require(false, "out_dtype", core::dtype_name(problem.out_dtype), "BF16, FP16 or FP32");
}

}  // namespace

std::string serves(KernelEntry const& kernel) {
  return std::string(core::find_kv_format(kernel.format)->name) + " to " + core::dtype_name(kernel.out_dtype) +
         ": any page size, h_kv, h_q 1..128, 1..128 query tokens, causal, visible_len, sink, batch_invariant";
}

KernelEntry const& select_kernel(core::Problem const& problem) {
  for (KernelEntry const& kernel : kKernels)
    if (accepts(kernel, problem)) return kernel;
  explain(problem);
  throw core::Error(FLASHMLA_INTERNAL, "plan_create: problem: got one that no kernel explains, expected a reason");
}

}  // namespace flashmla::cuda
