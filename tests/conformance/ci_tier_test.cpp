// The ci tier on the best instruction set of this machine and all of its cores. With FLASHMLA_CI_EVERY=N, every N-th check of it:
// under AddressSanitizer all of them would take half an hour.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "conformance/conformance.hpp"

namespace flashmla::conformance {
namespace {

TEST(CiTier, PassesOnTheBestInstructionSet) {
  Options options;
  options.tier = Tier::kCi;
  char const* const every = std::getenv("FLASHMLA_CI_EVERY");
  options.every = every == nullptr ? 1 : std::max(1l, std::strtol(every, nullptr, 10));
  options.on_progress = [](Progress const& progress) {
    if (progress.outcome.status == Status::kFailed) std::cout << "FAILED " << progress.name << ": " << progress.outcome.text << std::endl;
    if (progress.done % 250 == 0) std::cout << progress.done << " of " << progress.total << std::endl;
  };
  Report const report = run(options);
  EXPECT_EQ(report.failed, 0) << report.text();
  EXPECT_GT(report.passed * options.every, 2000);
  std::cout << report.text();
}

}  // namespace
}  // namespace flashmla::conformance
