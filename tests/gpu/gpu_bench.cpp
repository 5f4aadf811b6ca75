// Times the rows of bench/bench_decode.py without Python: a CUDA graph of many calls over caches that L2 does not hold.
//
//   gpu_bench [--set main,pages,heads,copies] [--filter TEXT] [--json PATH] [--read-gbps 3050] [--tflops 780] [--rounds 7]
//             [--fp16] [--no-check]
//
// Columns: a complete call (schedule reused), its share of the floor max(FLOP / rate, bytes / bandwidth), `update`, and the
// errors of two requests against the fp64 oracle. Rows of the set `pages` end with their rate as a share of the row with
// pages of 64, and what is asked for. `copies` times copy_pages, whose bytes are read and written.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <span>

#include "conformance/buffer.hpp"
#include "cuda/decode_plan.hpp"
#include "gpu/decode_setup.hpp"

namespace flashmla::test {
namespace {

struct Options {
  std::vector<std::string> sets = {"main"};
  std::string filter, json;
  double read_gbps = 3050, tflops = 780;
  int rounds = 7;
  bool is_fp16 = false, no_check = false;
};

struct Row {
  std::string name;
  double floor_us = 0, call_us = 0, update_us = 0, gbps = 0, tflops = 0;
  DecodeSetup::Errors errors;
  double ratio = 0, bar = 0;  // the baseline's time over this row's, and the least asked for; 0: none
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
  bytes = static_cast<double>(tokens) * c.h_kv * 576 * 2 + static_cast<double>(c.batch) * c.q_tokens * c.h_q * (576 + 512) * 2;
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

// One call copies random pages of every layer. Calls of a graph copy different ones, out of as many as L2 does not hold.
Row measure_copies(CopyCase const& c, Options const& options, cudaStream_t stream) {
  constexpr int64_t kTokens = 64, kDim = 576, kPage = kTokens * kDim;
  int64_t const num_pages = std::max(2 * c.copies, 64);
  DeviceArray<uint16_t> caches(static_cast<size_t>(c.layers * num_pages * kPage));
  fill_normal(caches.get(), caches.size(), options.is_fp16, 0.1F, 3);
  std::vector<flashmla_view> views;
  for (int64_t layer = 0; layer < c.layers; ++layer)
    views.push_back(conformance::make_view(caches.get() + layer * num_pages * kPage, FLASHMLA_BF16, {FLASHMLA_CUDA, 0},
                                           {num_pages, kTokens, kDim}, {kPage, kDim, 1}));
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::mt19937_64 engine(5);
  auto const copy = [&] {
    std::shuffle(pages.begin(), pages.end(), engine);
    std::vector<flashmla_page_copy> copies;
    for (size_t i = 0; i < static_cast<size_t>(c.copies); ++i) copies.push_back({pages[2 * i], pages[2 * i + 1]});
    flashmla_copy_pages_args args{};
    args.struct_size = sizeof args;
    args.caches = views.data(), args.num_caches = c.layers;
    args.copies = copies.data(), args.num_copies = c.copies;
    if (flashmla_copy_pages(&args, stream) != FLASHMLA_OK) throw std::runtime_error(flashmla_last_error());
  };
  copy();
  check_call(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  double const bytes = 2.0 * c.copies * c.layers * kPage * 2;
  Row row;
  row.name = c.name;
  row.floor_us = bytes / options.read_gbps / 1e3;
  Timer timer;
  row.call_us = time_calls(timer, stream, std::clamp(static_cast<int>(4e3 / row.floor_us), 2, 64), options.rounds, [&](int) { copy(); });
  row.gbps = bytes / row.call_us / 1e3;
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
          {"lse_abs", row.errors.lse_abs},
          {"ratio", row.ratio},
          {"bar", row.bar}};
}

// What has been timed so far, printed as it comes.
class Table {
 public:
  explicit Table(Options const& options) : options_(options) {
    std::printf("%-26s %9s %9s %6s %7s %6s %6s %9s %9s\n", "case", "floor us", "call us", "% fl", "update", "GB/s", "TF", "out L2",
                "lse abs");
  }
  [[nodiscard]] bool wants(char const* set, char const* name) const {
    return std::find(options_.sets.begin(), options_.sets.end(), set) != options_.sets.end() &&
           std::string(name).find(options_.filter) != std::string::npos;
  }
  template <class Measure>
  void add(char const* name, Measure const& timed) {
    try {
      print(timed());
    } catch (core::Error const& error) {
      if (error.status() != FLASHMLA_UNSUPPORTED) ++failures_;
      std::printf("%-26s %s: %s\n", name, error.status() == FLASHMLA_UNSUPPORTED ? "unsupported" : "FAILED", error.what());
    } catch (std::exception const& error) {
      ++failures_;
      std::printf("%-26s FAILED: %s\n", name, error.what());
    }
    std::fflush(stdout);
  }
  /// This row's rate as a share of that of the row `baseline`; 0 when that was not timed.
  [[nodiscard]] double ratio_to(char const* baseline, Row const& row) const {
    for (Row const& other : rows_)
      if (baseline != nullptr && other.name == baseline) return other.call_us / row.call_us;
    return 0;
  }
  /// Writes the results; the exit code.
  [[nodiscard]] int conclude() const {
    nlohmann::json rows = nlohmann::json::array();
    for (Row const& row : rows_) rows.push_back(to_json(row));
    nlohmann::json const all = {{"read_GBps", options_.read_gbps}, {"TFLOPS", options_.tflops}, {"results", rows}};
    if (!options_.json.empty()) std::ofstream(options_.json) << all.dump(1) << '\n';
    return failures_ == 0 ? 0 : 1;
  }

 private:
  void print(Row const& row) {
    bool const is_right = row.errors.out_l2 <= (options_.is_fp16 ? 4e-4 : 2.8e-3) && row.errors.lse_abs <= 1e-5;
    failures_ += is_right ? 0 : 1;
    std::printf("%-26s %9.1f %9.1f %6.1f %7.2f %6.0f %6.0f %9.1e %9.1e%s", row.name.c_str(), row.floor_us, row.call_us,
                100 * row.floor_us / row.call_us, row.update_us, row.gbps, row.tflops, row.errors.out_l2, row.errors.lse_abs,
                is_right ? "" : " WRONG");
    if (row.ratio > 0) std::printf("  %5.1f %% of its baseline's rate", 100 * row.ratio);
    if (row.ratio > 0 && row.bar > 0) std::printf(", %.0f asked%s", 100 * row.bar, row.ratio < row.bar ? ": BELOW" : "");
    std::printf("\n");
    rows_.push_back(row);
  }

  Options const& options_;
  std::vector<Row> rows_;
  int failures_ = 0;
};

int bench(Options const& options) {
  cudaStream_t stream = nullptr;
  check_call(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  Table table(options);
  struct Set {
    char const* name;
    std::span<BenchCase const> cases;
  };
  for (auto const& [set, cases] : {Set{"main", kMainCases}, Set{"pages", kPageCases}, Set{"heads", kHeadCases}})
    for (BenchCase const& c : cases)
      if (table.wants(set, c.name))
        table.add(c.name, [&] {
          Row row = measure(c, options, stream);
          row.ratio = table.ratio_to(c.baseline, row), row.bar = c.bar;
          return row;
        });
  for (CopyCase const& c : kCopyCases)
    if (table.wants("copies", c.name)) table.add(c.name, [&] { return measure_copies(c, options, stream); });
  check_call(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return table.conclude();
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  flashmla::test::Options options;
  CLI::App app("Times dense decode and copies of pages on a Hopper GPU.");
  app.add_option("--set", options.sets, "main, pages, heads, copies; several with commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"main", "pages", "heads", "copies"}));
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
