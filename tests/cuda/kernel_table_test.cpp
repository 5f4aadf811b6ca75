// Which problems the kernel table serves, and that a refusal names the argument and the nearest problem.
#include "cuda/kernel_table.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "core/error.hpp"
#include "core/kv_format.hpp"

namespace flashmla::cuda {
namespace {

core::Problem plain_problem(flashmla_kv_format format, flashmla_dtype out_dtype) {
  core::Problem problem;
  problem.h_q = 128;
  problem.format = core::find_kv_format(format);
  problem.q_dtype = problem.format->dtype;
  problem.out_dtype = out_dtype;
  problem.max_batch = 1;
  problem.max_q_tokens = 128;
  return problem;
}

TEST(KernelTable, everyRowIsChosenByItsOwnProblem) {
  std::set<std::string> names;
  for (KernelEntry const& kernel : kKernels) {
    EXPECT_STREQ(select_kernel(plain_problem(kernel.format, kernel.out_dtype)).name, kernel.name);
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name << " twice";
    EXPECT_NE(serves(kernel).find(core::find_kv_format(kernel.format)->name), std::string::npos);
  }
}

TEST(KernelTable, hasRowsOfEveryServedFormatAlone) {
  std::set<flashmla_kv_format> formats;
  for (KernelEntry const& kernel : kKernels) formats.insert(kernel.format);
  for (core::KvFormat const& format : core::kKvFormats)
    EXPECT_EQ(formats.contains(format.id), core::is_served_on_gpu(format)) << format.name;
}

TEST(KernelTable, anyHeadsAndQueryTokens) {
  for (int32_t h_q : {1, 3, 16, 20, 63, 64, 65, 128})
    for (int64_t q_tokens : {1, 2, 128}) {
      core::Problem problem = plain_problem(FLASHMLA_KV_BF16_576, FLASHMLA_BF16);
      problem.h_q = h_q;
      problem.max_q_tokens = q_tokens;
      EXPECT_NO_THROW(select_kernel(problem));
    }
}

TEST(KernelTable, anyPagesAndKvHeads) {
  for (int32_t page_tokens : {1, 2, 16, 48, 63, 64, 100, 256})
    for (int32_t h_kv : {1, 2, 8, 128}) {
      core::Problem problem = plain_problem(FLASHMLA_KV_FP16_576, FLASHMLA_FP16);
      problem.page_tokens = page_tokens;
      problem.h_kv = h_kv;
      EXPECT_NO_THROW(select_kernel(problem));
    }
}

struct Refusal {
  char const* argument;
  char const* got;
  std::function<void(core::Problem&)> change;
};

TEST(KernelTable, refusalsNameTheArgument) {
  Refusal const refusals[] = {
      {"kv_format", "FP8_V32_656", [](core::Problem& p) { p.format = core::find_kv_format(FLASHMLA_KV_FP8_V32_656); }},
      {"kv_format", "FP32_576", [](core::Problem& p) { p.format = core::find_kv_format(FLASHMLA_KV_FP32_576); }},
      {"q_dtype", "FP16", [](core::Problem& p) { p.q_dtype = FLASHMLA_FP16; }},
      {"out_dtype", "FP64", [](core::Problem& p) { p.out_dtype = FLASHMLA_FP64; }},
      {"h_q", "129", [](core::Problem& p) { p.h_q = 129; }},
      {"max_q_tokens", "129", [](core::Problem& p) { p.max_q_tokens = 129; }},
      {"topk", "64", [](core::Problem& p) { p.topk = 64; }},
      {"extra_kv_format", "one", [](core::Problem& p) { p.extra_format = p.format; }},
      {"max_kv_len", "0 (unbounded)", [](core::Problem& p) { p.batch_invariant = true; }},
  };
  for (Refusal const& refusal : refusals) {
    core::Problem problem = plain_problem(FLASHMLA_KV_BF16_576, FLASHMLA_BF16);
    refusal.change(problem);
    try {
      select_kernel(problem);
      ADD_FAILURE() << refusal.argument << " was accepted";
    } catch (core::Error const& error) {
      EXPECT_EQ(error.status(), FLASHMLA_UNSUPPORTED);
      std::string const start = std::string("plan_create: ") + refusal.argument + ": got " + refusal.got;
      EXPECT_EQ(std::string(error.what()).rfind(start, 0), 0U) << error.what();
    }
  }
}

}  // namespace
}  // namespace flashmla::cuda
