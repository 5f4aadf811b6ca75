// The smoke tier on every instruction set that this machine has; rows that it lacks are skipped by name.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conformance/conformance.hpp"

namespace flashmla::conformance {
namespace {

struct Row {
  flashmla_kernel_info kernel;
  int32_t num_threads;
};

/// Every kernel row of the CPU, on one thread and on three.
std::vector<Row> rows() {
  std::vector<Row> all;
  for (int32_t i = 0; i < flashmla_num_kernels(); ++i) {
    flashmla_kernel_info info{};
    info.struct_size = sizeof info;
    if (flashmla_get_kernel_info(i, &info) != FLASHMLA_OK || info.device_kind != FLASHMLA_CPU) continue;
    all.insert(all.end(), {{info, 1}, {info, 3}});
  }
  return all;
}

/// The name of a row without what all share: cpu.decode.avx2 is avx2.
std::string short_name(Row const& row) {
  std::string const name = row.kernel.name;
  return name.substr(name.rfind('.') + 1);
}

class SmokeTier : public testing::TestWithParam<Row> {};

TEST_P(SmokeTier, Passes) {
  auto const& [kernel, num_threads] = GetParam();
  if (kernel.usable == 0) GTEST_SKIP() << kernel.name << ": " << kernel.reason;
  Options options;
  options.target.isa = kernel.isa;
  options.target.num_threads = num_threads;
  Report const report = run(options);
  EXPECT_EQ(report.failed, 0) << report.text();
  EXPECT_GT(report.passed, 200) << report.text();
}

INSTANTIATE_TEST_SUITE_P(Isa, SmokeTier, testing::ValuesIn(rows()),
                         [](auto const& info) { return short_name(info.param) + "_threads_" + std::to_string(info.param.num_threads); });

}  // namespace
}  // namespace flashmla::conformance
