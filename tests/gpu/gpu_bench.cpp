// Times the rows of bench/bench_decode.py without Python: a CUDA graph of many calls over caches that L2 does not hold.
//
//   gpu_bench [--filter TEXT] [--json PATH] [--read-gbps 3050] [--tflops 780] [--rounds 7] [--fp16] [--no-check]
//
// Columns: a complete call (schedule reused), its share of the floor max(FLOP / rate, bytes / bandwidth), `update`, and the
// errors of two requests against the fp64 oracle.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cuda/decode_plan.hpp"
#include "gpu/decode_setup.hpp"

namespace flashmla::test {
namespace {

struct Options {
  std::string filter, json;
  double read_gbps = 3050, tflops = 780;
  int rounds = 7;
  bool is_fp16 = false, no_check = false;
};

struct Row {
  std::string name;
  double floor_us = 0, call_us = 0, update_us = 0, gbps = 0, tflops = 0;
  DecodeSetup::Errors errors;
};

class Timer {
 public:
  Timer() {
    check_call(cudaEventCreate(&start_), "cudaEventCreate");
    check_call(cudaEventCreate(&stop_), "cudaEventCreate");
  }
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Timer(Timer const&) = delete;
  Timer& operator=(Timer const&) = delete;
  /// Median over `rounds` replays, after one that is not counted, in us.
  double median_us(Graph const& graph, cudaStream_t stream, int rounds) {
    std::vector<double> times;
    for (int r = 0; r <= rounds; ++r) {
      check_call(cudaEventRecord(start_, stream), "cudaEventRecord");
      graph.replay(stream);
      check_call(cudaEventRecord(stop_, stream), "cudaEventRecord");
      check_call(cudaEventSynchronize(stop_), "cudaEventSynchronize");
      float ms = 0;
      check_call(cudaEventElapsedTime(&ms, start_, stop_), "cudaEventElapsedTime");
      if (r > 0) times.push_back(ms * 1e3);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
  }

 private:
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

double floor_us_of(BenchCase const& c, int64_t tokens, Options const& options, double& flop, double& bytes) {
  flop = 2.0 * c.h_q * c.q_tokens * static_cast<double>(tokens) * (576 + 512);
  bytes = static_cast<double>(tokens) * 576 * 2 + static_cast<double>(c.batch) * c.q_tokens * c.h_q * (576 + 512) * 2;
  return std::max(flop / options.tflops / 1e6, bytes / options.read_gbps / 1e3);
}

// Time of `calls` things of one kind in a graph.
template <class Enqueue>
double time_calls(Timer& timer, cudaStream_t stream, int calls, int rounds, Enqueue enqueue) {
  Graph graph;
  graph.capture(stream, [&] {
    for (int i = 0; i < calls; ++i) enqueue(i);
  });
  return timer.median_us(graph, stream, rounds) / calls;
}

Row measure(BenchCase const& c, Options const& options, cudaStream_t stream) {
  SetupOptions setup_options;
  setup_options.is_fp16 = options.is_fp16;
  setup_options.out_dtype = options.is_fp16 ? FLASHMLA_FP16 : FLASHMLA_BF16;
  setup_options.num_caches = 2;
  setup_options.rotate_bytes = 300'000'000;
  DecodeSetup setup(c, make_lens(c, 0), setup_options);
  Row row;
  row.name = c.name;
  double flop = 0, bytes = 0;
  row.floor_us = floor_us_of(c, setup.total_tokens(), options, flop, bytes);
  int const calls = std::clamp(static_cast<int>(4e3 / std::max(row.floor_us, 5.0)), 2, 256);

  setup.reset(stream);
  setup.update(stream);
  setup.run(0, stream);
  setup.poison_outputs();
  check_call(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  Timer timer;
  auto const cache_of = [&](int i) { return i % setup.num_caches(); };
  row.call_us = time_calls(timer, stream, calls, options.rounds, [&](int i) { setup.run(cache_of(i), stream); });
  if (!options.no_check) {
    auto const& lens = setup.lens();
    auto const longest = static_cast<int32_t>(std::max_element(lens.begin(), lens.end()) - lens.begin());
    row.errors = setup.compare(cache_of(calls - 1), {c.batch / 2, longest});
  }
  row.update_us = time_calls(timer, stream, 64, options.rounds, [&](int) { setup.update(stream); });
  row.gbps = bytes / row.call_us / 1e3;
  row.tflops = flop / row.call_us / 1e6;
  flashmla_fault fault{};
  setup.plan().fault(setup.workspace(), stream, fault);
  if (fault.code != FLASHMLA_FAULT_NONE)
    throw std::runtime_error("fault " + std::to_string(fault.code) + " of request " + std::to_string(fault.request));
  return row;
}

nlohmann::json to_json(Row const& row) {
  return {{"name", row.name},
          {"floor_us", row.floor_us},
          {"us", row.call_us},
          {"frac", row.floor_us / row.call_us},
          {"update_us", row.update_us},
          {"gbps", row.gbps},
          {"tflops", row.tflops},
          {"out_l2", row.errors.out_l2},
          {"lse_abs", row.errors.lse_abs}};
}

int bench(Options const& options) {
  cudaStream_t stream = nullptr;
  check_call(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  nlohmann::json rows = nlohmann::json::array();
  int failures = 0;
  std::printf("%-26s %9s %9s %6s %7s %6s %6s %9s %9s\n", "case", "floor us", "call us", "% fl", "update", "GB/s", "TF", "out L2",
              "lse abs");
  for (BenchCase const& c : kBenchCases) {
    if (std::string(c.name).find(options.filter) == std::string::npos) continue;
    try {
      Row const row = measure(c, options, stream);
      bool const is_right = options.no_check || (row.errors.out_l2 <= (options.is_fp16 ? 4e-4 : 2.8e-3) && row.errors.lse_abs <= 1e-5);
      failures += is_right ? 0 : 1;
      std::printf("%-26s %9.1f %9.1f %6.1f %7.2f %6.0f %6.0f %9.1e %9.1e%s\n", c.name, row.floor_us, row.call_us,
                  100 * row.floor_us / row.call_us, row.update_us, row.gbps, row.tflops, row.errors.out_l2, row.errors.lse_abs,
                  is_right ? "" : " WRONG");
      rows.push_back(to_json(row));
    } catch (std::exception const& error) {
      ++failures;
      std::printf("%-26s FAILED: %s\n", c.name, error.what());
    }
    std::fflush(stdout);
  }
  if (!options.json.empty())
    std::ofstream(options.json) << nlohmann::json{{"read_GBps", options.read_gbps}, {"TFLOPS", options.tflops}, {"results", rows}}.dump(1)
                                << '\n';
  check_call(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  flashmla::test::Options options;
  CLI::App app("Times dense decode on a Hopper GPU.");
  app.add_option("--filter", options.filter, "only rows whose name contains this");
  app.add_option("--json", options.json, "write the results to this file");
  app.add_option("--read-gbps", options.read_gbps, "measured read bandwidth of the GPU")->check(CLI::PositiveNumber);
  app.add_option("--tflops", options.tflops, "measured matrix rate of the GPU")->check(CLI::PositiveNumber);
  app.add_option("--rounds", options.rounds, "replays a median is taken of")->check(CLI::Range(1, 1000));
  app.add_flag("--fp16", options.is_fp16, "FP16 cache, queries and output");
  app.add_flag("--no-check", options.no_check, "leave out the comparison with the oracle");
  CLI11_PARSE(app, argc, argv);
  return flashmla::test::run_on_gpu("gpu_bench", [&] { return flashmla::test::bench(options); });
}
