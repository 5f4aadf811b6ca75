// Random small problems on the GPU, many of them: values against the fp64 oracle, two runs bit for bit, poison, guards, faults.
//
//   gpu_stress [--count 20000] [--seed 1] [--seconds 100] [--jobs 16] [--progress] [--only SEED] [--cpu]
//
// Problem i is conformance::random_case(seed + i) on a random number of multiprocessors. Threads, each with a stream and
// memory of its own, work side by side, so that kernels of different problems meet on the GPU. It goes on until `count`
// problems have run; what the library does not serve is counted by its reason. `--only SEED` runs one problem again and
// says what it is; `--cpu` runs the same problems on the CPU against the reference.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "conformance/decode_check.hpp"
#include "conformance/random.hpp"
#include "conformance/random_case.hpp"
#include "gpu/gpu_support.hpp"
#include "support/cuda_memory.hpp"
#include "support/cuda_oracle.hpp"

namespace flashmla::test {
namespace {

using conformance::DecodeCase;
using conformance::Outcome;
using conformance::Status;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxTries = 40;  // for one problem that runs
constexpr size_t kMaxShown = 10;   // failures
constexpr double kLseAbs = 1e-5, kFp16Abs = 0x1p-25;

struct Options {
  int64_t count = 20000;
  uint64_t seed = 1;
  int64_t only = -1;
  double seconds = 100;
  int jobs = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 16U));
  bool progress = false, cpu = false;
};

/// "plan_create: page_tokens: got 16, expected 64" without what is the problem's own, so that reasons can be counted.
std::string reason_of(std::string text) {
  size_t const begin = text.find(": got "), end = text.find(", expected ");
  if (begin != std::string::npos && end != std::string::npos && begin < end) text.erase(begin + 1, end - begin);
  return text;
}

/// What became of the problems, added to by several threads.
class Tally {
 public:
  void add(uint64_t seed, Outcome const& outcome) {
    std::lock_guard const lock(mutex_);
    if (outcome.status == Status::kSkipped) {
      ++skipped_[reason_of(outcome.text)];
      return;
    }
    ++ran_;
    out_l2_ = std::max(out_l2_, {outcome.out_l2, seed}), lse_abs_ = std::max(lse_abs_, {outcome.lse_abs, seed});
    if (outcome.status == Status::kPassed) return;
    ++(outcome.other_bits ? wrong_bits_ : wrong_values_);
    failures_[seed] = outcome.text;
  }
  void give_up(std::string const& why) {
    std::lock_guard const lock(mutex_);
    if (lost_.empty()) lost_ = why;
  }
  [[nodiscard]] int64_t num_ran() const {
    std::lock_guard const lock(mutex_);
    return ran_;
  }
  [[nodiscard]] size_t num_failures() const {
    std::lock_guard const lock(mutex_);
    return failures_.size();
  }
  /// The report and the exit code.
  int conclude(int64_t wanted, double seconds) const {
    int64_t skipped = 0;
    for (auto const& [reason, count] : skipped_) {
      std::printf("skipped %lld: %s\n", static_cast<long long>(count), reason.c_str());
      skipped += count;
    }
    size_t shown = 0;
    for (auto const& [seed, text] : failures_) {
      if (shown++ == kMaxShown) break;
      std::printf("FAILED seed %llu: %s\n", static_cast<unsigned long long>(seed), text.c_str());
    }
    if (!failures_.empty())
      std::printf("run the first one again: gpu_stress --only %llu\n", static_cast<unsigned long long>(failures_.begin()->first));
    if (!lost_.empty()) std::printf("GAVE UP: %s\n", lost_.c_str());
    std::printf("worst relative L2 error of out %.3g (seed %llu), worst absolute error of lse %.3g (seed %llu)\n", out_l2_.first,
                static_cast<unsigned long long>(out_l2_.second), lse_abs_.first, static_cast<unsigned long long>(lse_abs_.second));
    std::printf("gpu_stress: %lld problems of %lld in %.1f s: %lld wrong bits, %lld wrong values; %lld skipped\n",
                static_cast<long long>(ran_), static_cast<long long>(wanted), seconds, static_cast<long long>(wrong_bits_),
                static_cast<long long>(wrong_values_), static_cast<long long>(skipped));
    return failures_.empty() && lost_.empty() && ran_ > 0 ? 0 : 1;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t> skipped_;
  std::map<uint64_t, std::string> failures_;
  int64_t ran_ = 0, wrong_bits_ = 0, wrong_values_ = 0;
  std::pair<double, uint64_t> out_l2_{}, lse_abs_{};  // the worst and its seed
  std::string lost_;
};

/// Where problems run: one of these a thread.
struct Machine {
  explicit Machine(bool is_cpu)
      : memory(is_cpu ? conformance::make_host_memory() : make_cuda_memory(0, true)),
        oracle(is_cpu ? conformance::make_reference_oracle(1) : make_cuda_oracle()) {}

  [[nodiscard]] Outcome check(uint64_t seed) const {
    DecodeCase const c = conformance::random_case(seed);
    conformance::Random random(seed ^ 0x5353);
    flashmla_target target{};
    target.struct_size = sizeof target;
    target.device = memory->device();
    bool const is_cpu = target.device.kind == FLASHMLA_CPU;
    int32_t const most[] = {4, 40, 132};
    if (is_cpu) target.num_threads = random.between(1, 4);
    else if (random.below(4) > 0) target.num_sms = random.between(1, most[random.below(3)]);
    try {
      return check_decode(c, {target, *memory, *oracle, kLseAbs, kFp16Abs});
    } catch (std::exception const& error) {
      return conformance::failed(std::string("exception: ") + error.what());
    }
  }

  std::unique_ptr<conformance::DeviceMemory> memory;
  std::unique_ptr<conformance::Oracle> oracle;
};

/// After an error of the device nothing else works.
void require_device(bool is_cpu, uint64_t seed) {
  if (is_cpu) return;
  if (cudaError_t const status = cudaStreamSynchronize(cudaStreamPerThread); status != cudaSuccess)
    throw std::runtime_error("the device failed during seed " + std::to_string(seed) +
                             " or a problem beside it: " + cudaGetErrorString(status));
}

int run_one(Options const& options) {
  auto const seed = static_cast<uint64_t>(options.only);
  std::printf("%s\n", text_of(conformance::random_case(seed)).c_str());
  auto const start = Clock::now();
  Tally tally;
  tally.add(seed, Machine(options.cpu).check(seed));
  return tally.conclude(1, std::chrono::duration<double>(Clock::now() - start).count());
}

int run_many(Options const& options) {
  auto const start = Clock::now();
  auto const seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  std::atomic<int64_t> next{0};
  std::atomic<int> working{options.jobs};
  Tally tally;
  auto const work = [&] {
    try {
      Machine const machine(options.cpu);
      while (seconds() < options.seconds && tally.num_ran() < options.count) {
        int64_t const i = next++;
        if (i >= options.count * kMaxTries) break;
        uint64_t const seed = options.seed + static_cast<uint64_t>(i);
        tally.add(seed, machine.check(seed));
        require_device(options.cpu, seed);
      }
    } catch (std::exception const& error) {
      next = options.count * kMaxTries;
      tally.give_up(error.what());
    }
    --working;
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.jobs; ++i) threads.emplace_back(work);
    for (int tick = 1; working > 0; ++tick) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (!options.progress || tick % 50 != 0) continue;
      std::printf("%.0f s: %lld ran, %zu failed\n", seconds(), static_cast<long long>(tally.num_ran()), tally.num_failures());
      std::fflush(stdout);
    }
  }
  return tally.conclude(options.count, seconds());
}

int run(Options const& options) { return options.only >= 0 ? run_one(options) : run_many(options); }

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  flashmla::test::Options options;
  CLI::App app("Random small problems on the GPU: bits against a second run, values against an fp64 oracle.");
  app.add_option("--count", options.count, "problems that run")->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "of the first problem; the others follow");
  app.add_option("--only", options.only, "run the problem of this seed and say what it is")->check(CLI::NonNegativeNumber);
  app.add_option("--seconds", options.seconds, "stop after so many")->check(CLI::PositiveNumber);
  app.add_option("--jobs", options.jobs, "threads")->check(CLI::Range(1, 64));
  app.add_flag("--progress", options.progress, "a line every five seconds");
  app.add_flag("--cpu", options.cpu, "on the CPU, against the reference");
  CLI11_PARSE(app, argc, argv);
  if (options.cpu) return flashmla::test::run(options);
  return flashmla::test::run_on_gpu("gpu_stress", [&] { return flashmla::test::run(options); });
}
