// The fp64 CUDA oracle against src/reference: the same rows of the same poisoned inputs, to near fp64 precision.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "conformance/decode_check.hpp"
#include "conformance/decode_inputs.hpp"
#include "gpu/gpu_support.hpp"
#include "support/cuda_memory.hpp"
#include "support/cuda_oracle.hpp"

namespace flashmla::test {
namespace {

using conformance::DecodeCase;

constexpr int64_t kRows = 6;           // of a case
constexpr int64_t kMaxTokens = 6'000;  // the reference takes 2 us a token and row
constexpr int kEvery = 16;             // of the matrix; its neighbours differ in one axis only
constexpr double kBound = 1e-10;

bool agree(double a, double b) {
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::fabs(a - b) <= kBound * std::max(1.0, std::fabs(b));
}

/// Empty when both say the same about the case.
std::string compare(DecodeCase const& c, conformance::DeviceMemory& memory) {
  conformance::DecodeInputs const inputs(c, memory);
  core::Problem const problem = conformance::make_core_problem(c);
  std::vector<reference::Row> const rows = conformance::rows_to_check(c, kRows);
  auto const width = static_cast<size_t>(problem.format->v_dim);
  std::vector<double> out(rows.size() * width), lse(rows.size());
  cuda_reference_decode(problem, inputs.device_call(), rows, out.data(), lse.data());
  core::DecodeCall const host = inputs.host_call();
  for (size_t i = 0; i < rows.size(); ++i) {
    reference::RowResult const want = reference::decode_row(problem, host, rows[i]);
    if (!agree(lse[i], want.lse))
      return "lse of row " + std::to_string(i) + ": got " + std::to_string(lse[i]) + ", expected " + std::to_string(want.lse);
    for (size_t d = 0; d < width; ++d)
      if (!agree(out[i * width + d], want.out[d]))
        return "out of row " + std::to_string(i) + ", column " + std::to_string(d) + ": got " + std::to_string(out[i * width + d]) +
               ", expected " + std::to_string(want.out[d]);
  }
  return "";
}

int compare_all() {
  auto const memory = make_cuda_memory(0, true);
  int compared = 0, failures = 0;
  int index = 0;
  for (DecodeCase const& c : conformance::decode_cases(conformance::Tier::kCi)) {
    if (!core::is_served_on_gpu(*core::find_kv_format(c.format))) continue;  // nothing on a GPU reads it
    if (index++ % kEvery != 0) continue;
    if (std::accumulate(c.kv_len.begin(), c.kv_len.end(), int64_t{0}) > kMaxTokens) continue;
    ++compared;
    if (std::string const what = compare(c, *memory); !what.empty()) {
      ++failures;
      std::printf("FAILED  %s: %s\n", c.name.c_str(), what.c_str());
    }
  }
  std::printf("gpu_oracle: %d cases, %d failed\n", compared, failures);
  return failures == 0 && compared > 0 ? 0 : 1;
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  CLI::App app("Checks the CUDA oracle against the reference.");
  CLI11_PARSE(app, argc, argv);
  return flashmla::test::run_on_gpu("gpu_oracle", [] { return flashmla::test::compare_all(); });
}
