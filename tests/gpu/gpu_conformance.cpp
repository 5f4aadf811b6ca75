// The conformance suite over the CUDA backend, judged by the fp64 CUDA oracle.
//
//   gpu_conformance [--tier smoke|ci|full] [--filter TEXT] [--jobs 8] [--plain-memory]
//
// Cases run on several threads, each with its own stream, memory and oracle; making inputs on the host is what takes
// time. The last lines are the report: counts, worst errors, failures, skips by reason.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "conformance/conformance.hpp"
#include "gpu/gpu_support.hpp"
#include "support/cuda_memory.hpp"
#include "support/cuda_oracle.hpp"

namespace flashmla::test {
namespace {

using conformance::Check;
using conformance::Outcome;
using conformance::Status;
using conformance::Tier;

struct Options {
  Tier tier = Tier::kSmoke;
  std::string filter;
  int jobs = 8;
  bool plain_memory = false;
};

// A report that several threads add to.
class SharedReport {
 public:
  void add(std::string const& name, Outcome const& outcome) {
    std::lock_guard const lock(mutex_);
    if (outcome.status == Status::kPassed) {
      ++report_.passed;
      if (outcome.out_l2 > report_.out_l2.value) report_.out_l2 = {name, outcome.out_l2};
      if (outcome.lse_abs > report_.lse_abs.value) report_.lse_abs = {name, outcome.lse_abs};
    } else if (outcome.status == Status::kFailed) {
      ++report_.failed;
      report_.failures.push_back({name, outcome.text});
    } else {
      ++report_.skipped;
      report_.skips.push_back({name, outcome.text});
    }
  }
  [[nodiscard]] conformance::Report const& get() const { return report_; }

 private:
  std::mutex mutex_;
  conformance::Report report_;
};

Outcome run_guarded(Check const& check, conformance::Bench const& bench) {
  try {
    return check.run(bench);
  } catch (std::exception const& error) {
    return conformance::failed(std::string("exception: ") + error.what());
  }
}

std::vector<Check> select_checks(Options const& options) {
  std::vector<Check> selected;
  for (Check& check : conformance::checks(options.tier))
    if (check.name.find(options.filter) != std::string::npos) selected.push_back(std::move(check));
  return selected;
}

void run_some(std::vector<Check> const& checks, std::atomic<size_t>& next, SharedReport& report, bool is_pooled) {
  auto const memory = make_cuda_memory(0, is_pooled);
  auto const oracle = make_cuda_oracle();
  flashmla_target target{};
  target.struct_size = sizeof(target);
  target.device = memory->device();
  conformance::Bench const bench{target, *memory, *oracle};
  for (size_t i = next++; i < checks.size(); i = next++) {
    report.add(checks[i].name, run_guarded(checks[i], bench));
    if (cudaError_t const status = cudaDeviceSynchronize(); status != cudaSuccess)
      throw std::runtime_error("the device failed during " + checks[i].name + " or a case beside it: " + cudaGetErrorString(status));
  }
}

int run_suite(Options const& options) {
  auto const start = std::chrono::steady_clock::now();
  std::vector<Check> const checks = select_checks(options);
  std::atomic<size_t> next{0};
  SharedReport report;
  std::mutex mutex;
  std::string lost;  // why a thread gave up
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.jobs; ++i)
      threads.emplace_back([&] {
        try {
          run_some(checks, next, report, !options.plain_memory);
        } catch (std::exception const& error) {
          next = checks.size();
          std::lock_guard const lock(mutex);
          if (lost.empty()) lost = error.what();
        }
      });
  }
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s\n", report.get().text().c_str());
  std::printf("gpu_conformance: %zu checks in %.1f s: %lld passed, %lld failed, %lld skipped%s%s\n", checks.size(), seconds,
              static_cast<long long>(report.get().passed), static_cast<long long>(report.get().failed),
              static_cast<long long>(report.get().skipped), lost.empty() ? "" : "; GAVE UP: ", lost.c_str());
  bool const is_complete = report.get().passed + report.get().failed + report.get().skipped == static_cast<int64_t>(checks.size());
  return report.get().failed == 0 && lost.empty() && is_complete && report.get().passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  using flashmla::conformance::Tier;
  flashmla::test::Options options;
  CLI::App app("Checks the CUDA backend against an fp64 oracle.");
  std::map<std::string, Tier> const tiers{{"smoke", Tier::kSmoke}, {"ci", Tier::kCi}, {"full", Tier::kFull}};
  app.add_option("--tier", options.tier, "smoke, ci or full")->transform(CLI::CheckedTransformer(tiers));
  app.add_option("--filter", options.filter, "only checks whose name contains this");
  app.add_option("--jobs", options.jobs, "threads")->check(CLI::Range(1, 64));
  app.add_flag("--plain-memory", options.plain_memory, "no memory pool, for memory checkers");
  CLI11_PARSE(app, argc, argv);
  return flashmla::test::run_on_gpu("gpu_conformance", [&] { return flashmla::test::run_suite(options); });
}
