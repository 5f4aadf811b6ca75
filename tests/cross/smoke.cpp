// The smoke tier on every CPU kernel row that this machine can run, without a test framework, so that nothing but this
// repository has to be compiled for another architecture.
//
//   smoke [STRIDE]    every STRIDE-th check, of each row other ones; 1 (the default) is the whole tier
//
// Exit code 0: at least one row ran, and nothing failed.
#include <flashmla/flashmla.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "conformance/conformance.hpp"
#include "conformance/device_memory.hpp"
#include "conformance/oracle.hpp"

namespace flashmla::conformance {
namespace {

struct Totals {
  int passed = 0, failed = 0, skipped = 0;
};

Totals run_row(flashmla_kernel_info const& info, size_t first, size_t stride) {
  std::unique_ptr<DeviceMemory> const memory = make_host_memory();
  std::unique_ptr<Oracle> const oracle = make_reference_oracle();
  flashmla_target target{};
  target.struct_size = sizeof target;
  target.isa = info.isa;
  target.num_threads = 2;
  std::vector<Check> const all = checks(Tier::kSmoke);
  Totals totals;
  for (size_t i = first; i < all.size(); i += stride) {
    Outcome const outcome = all[i].run({target, *memory, *oracle});
    totals.passed += outcome.status == Status::kPassed ? 1 : 0;
    totals.skipped += outcome.status == Status::kSkipped ? 1 : 0;
    if (outcome.status != Status::kFailed) continue;
    ++totals.failed;
    std::printf("%s: FAILED %s: %s\n", info.name, all[i].name.c_str(), outcome.text.c_str());
  }
  return totals;
}

}  // namespace
}  // namespace flashmla::conformance

int main(int argc, char** argv) {
  using namespace flashmla::conformance;
  int const stride = argc > 1 ? std::atoi(argv[1]) : 1;
  if (stride < 1) return 2;
  int failed = 0, rows = 0;
  for (int32_t i = 0; i < flashmla_num_kernels(); ++i) {
    flashmla_kernel_info info{};
    info.struct_size = sizeof info;
    if (flashmla_get_kernel_info(i, &info) != FLASHMLA_OK || info.device_kind != FLASHMLA_CPU) continue;
    if (info.usable == 0) {
      std::printf("%s: skipped: %s\n", info.name, info.reason);
      continue;
    }
    Totals const totals = run_row(info, static_cast<size_t>(rows % stride), static_cast<size_t>(stride));
    std::printf("%s: %d passed, %d failed, %d skipped\n", info.name, totals.passed, totals.failed, totals.skipped);
    std::fflush(stdout);
    failed += totals.failed;
    rows += totals.passed > 0 ? 1 : 0;
  }
  return failed == 0 && rows > 0 ? 0 : 1;
}
