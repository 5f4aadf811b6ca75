// The smoke tier on every instruction set that this machine has; rows that it lacks are skipped by name.
#include <gtest/gtest.h>

#include "conformance/conformance.hpp"

namespace flashmla::conformance {
namespace {

struct IsaRow {
  flashmla_isa isa;
  char const* name;
  int32_t num_threads;
};
constexpr IsaRow kRows[] = {
    {FLASHMLA_ISA_PORTABLE, "portable", 1}, {FLASHMLA_ISA_PORTABLE, "portable", 3},       {FLASHMLA_ISA_AVX2, "avx2", 1},
    {FLASHMLA_ISA_AVX2, "avx2", 3},         {FLASHMLA_ISA_AVX512_BF16, "avx512_bf16", 1}, {FLASHMLA_ISA_AVX512_BF16, "avx512_bf16", 3},
};

/// Why this machine cannot run a row, in the library's words; empty if it can.
std::string why_not_usable(flashmla_isa isa) {
  std::string reason = "no kernel row of this instruction set is built";
  for (int32_t i = 0; i < flashmla_num_kernels(); ++i) {
    flashmla_kernel_info info{};
    info.struct_size = sizeof info;
    if (flashmla_get_kernel_info(i, &info) != FLASHMLA_OK || info.device_kind != FLASHMLA_CPU || info.isa != isa) continue;
    if (info.usable) return "";
    reason = info.reason;
  }
  return reason;
}

class SmokeTier : public testing::TestWithParam<IsaRow> {};

TEST_P(SmokeTier, Passes) {
  auto const [isa, name, num_threads] = GetParam();
  if (std::string const reason = why_not_usable(isa); !reason.empty()) GTEST_SKIP() << name << ": " << reason;
  Options options;
  options.target.isa = isa;
  options.target.num_threads = num_threads;
  Report const report = run(options);
  EXPECT_EQ(report.failed, 0) << report.text();
  EXPECT_GT(report.passed, 200) << report.text();
}

INSTANTIATE_TEST_SUITE_P(Isa, SmokeTier, testing::ValuesIn(kRows), [](auto const& info) {
  return std::string(info.param.name) + "_threads_" + std::to_string(info.param.num_threads);
});

}  // namespace
}  // namespace flashmla::conformance
