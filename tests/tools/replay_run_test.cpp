#include "tools/flashmla/replay_run.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/replay_report.hpp"
#include "tools/flashmla/row_check.hpp"
#include "tools/xml_check.hpp"

namespace flashmla::tools {
namespace {

constexpr Ceilings kFast{100e9, 10e12};

/// A trace on disk for as long as this lives; tests run in parallel processes, so its name holds the process.
class TraceFile {
 public:
  explicit TraceFile(std::string const& text)
      : path_(std::filesystem::temp_directory_path() /
              ("flashmla_trace_" + std::to_string(getpid()) + "_" + std::to_string(++count_) + ".jsonl")) {
    std::ofstream(path_) << text;
  }
  ~TraceFile() { std::filesystem::remove(path_); }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  static inline int count_ = 0;
  std::filesystem::path path_;
};

std::string line(int64_t ms, int64_t input, int64_t output) {
  return "{\"timestamp\": " + std::to_string(ms) + ", \"input_length\": " + std::to_string(input) +
         ", \"output_length\": " + std::to_string(output) + "}\n";
}

ReplayOptions small_options(std::string const& trace) {
  ReplayOptions options;
  options.trace = trace;
  options.pages = 40;
  options.page_tokens = 16;
  options.layers = 2;
  options.heads = 4;
  options.max_batch = 4;
  options.steps = 1000;
  options.checks = 3;
  options.backend.backend = "cpu";
  return options;
}

ReplayResult replay(ReplayOptions const& options) {
  return run_replay(options, [](std::string const&, double, std::string const&) {});
}

TEST(Replay, ServesAWholeTrace) {
  TraceFile const trace(line(0, 100, 5) + line(0, 200, 7) + line(0, 5000, 3) + line(0, 10, 0) + line(9000, 30, 4));
  ReplayResult const result = replay(small_options(trace.path()));
  EXPECT_EQ(result.counts.finished, 3);
  EXPECT_EQ(result.counts.rejected, 1);
  EXPECT_EQ(result.counts.empty, 1);
  EXPECT_EQ(result.counts.tokens, 16);
  EXPECT_EQ(result.waiting, 0);
  EXPECT_EQ(result.checks.size(), 3u);
  EXPECT_TRUE(result.checks_passed());
  EXPECT_EQ(result.steps.size(), 7u);
  EXPECT_EQ(result.steps[0].batch, 3);
  EXPECT_EQ(result.steps[0].kv_tokens, 101 + 201 + 31);
  EXPECT_EQ(result.steps[0].longest, 201);
  EXPECT_EQ(result.steps[0].pages, 7 + 13 + 2);
}

TEST(Replay, StopsAfterTheStepsItWasGiven) {
  TraceFile const trace(line(0, 100, 500));
  ReplayOptions options = small_options(trace.path());
  options.steps = 4;
  ReplayResult const result = replay(options);
  EXPECT_EQ(result.steps.size(), 4u);
  EXPECT_EQ(result.counts.tokens, 4);
}

TEST(Replay, TimeScaleMakesRequestsArrive) {
  TraceFile const trace(line(0, 10, 2) + line(3600000, 10, 2));
  ReplayOptions options = small_options(trace.path());
  options.time_scale = 1;
  ReplayResult const result = replay(options);
  EXPECT_EQ(result.counts.finished, 2);
  for (StepRecord const& step : result.steps) EXPECT_EQ(step.batch, 1) << "an hour lies between the two";
}

TEST(Replay, ATraceThatNeverFitsIsAUsageError) {
  TraceFile const trace(line(0, 100000, 5));
  EXPECT_THROW(replay(small_options(trace.path())), UsageError);
}

TEST(Replay, FailedChecksAreFailures) {
  ReplayResult result;
  EXPECT_TRUE(result.checks_passed());
  result.checks.push_back({0, 0, 0, 10, 2.7e-3, 1e-6, true});
  EXPECT_TRUE(result.checks_passed());
  result.checks.push_back({1, 0, 0, 10, 2.9e-3, 1e-6, true});
  EXPECT_FALSE(result.checks_passed());
  EXPECT_EQ(result.worst_error(), 2.9e-3);
  result.checks.back() = {1, 0, 0, 10, 1e-3, 1e-6, false};
  EXPECT_FALSE(result.checks_passed());
}

TEST(Replay, CacheUseOfKnownSteps) {
  ReplayResult result;
  result.shape.layers = 2;
  result.shape.page_tokens = 64;
  result.shape.max_request_pages = 10;
  result.steps = {{2, 0, 100, 90, 3, 5, 2, 0.1}, {1, 0, 50, 50, 1, 1, 4, 0.1}};
  CacheUse const use = cache_use(result);
  double const token = 1152.0 * 2;
  EXPECT_DOUBLE_EQ(use.shared, (3 + 1) * 64 / 2.0 * token);
  EXPECT_DOUBLE_EQ(use.paged, (5 + 1) * 64 / 2.0 * token);
  EXPECT_DOUBLE_EQ(use.padded, (2 * 90 + 50) / 2.0 * token);
  EXPECT_DOUBLE_EQ(use.contiguous, (2 + 1) * 640 / 2.0 * token);
  SharingUse const saved = sharing_use(result);
  EXPECT_DOUBLE_EQ(saved.saved_pages_mean, 1);
  EXPECT_DOUBLE_EQ(saved.saved_pages_most, 2);
  EXPECT_DOUBLE_EQ(saved.saved_bytes_mean, 64 * token);
  EXPECT_DOUBLE_EQ(saved.saved_bytes_most, 2 * 64 * token);
  EXPECT_DOUBLE_EQ(saved.kept_pages_mean, 3);
}

std::string line_of_prompt(int64_t input, int64_t output, std::string const& ids) {
  return "{\"timestamp\": 0, \"input_length\": " + std::to_string(input) + ", \"output_length\": " + std::to_string(output) +
         ", \"hash_ids\": [" + ids + "]}\n";
}

TEST(Replay, SharesWhatPromptsHaveInCommon) {
  TraceFile const trace(line_of_prompt(600, 5, "1, 2") + line_of_prompt(520, 5, "1, 3") + line_of_prompt(600, 5, "1, 2"));
  ReplayOptions options = small_options(trace.path());
  options.pages = 200;
  options.checks = 30;
  ReplayResult const shared = replay(options);
  EXPECT_TRUE(shared.checks_passed());
  EXPECT_EQ(shared.counts.with_prefix, 2);
  EXPECT_EQ(shared.counts.prompt_tokens, 600 + 520 + 600);
  EXPECT_EQ(shared.counts.prefix_tokens, 512 + 600);
  EXPECT_EQ(shared.counts.copied_pages, 1) << "that with the last 8 tokens of 600";
  EXPECT_EQ(shared.steps[0].table_pages, 38 + 33 + 38);
  EXPECT_EQ(shared.steps[0].pages, 38 + (33 - 32) + (38 - 37));
  EXPECT_NE(replay_text(shared).find("2 of 3 requests found the beginning of their prompt, 64.7 %"), std::string::npos)
      << replay_text(shared);
  EXPECT_EQ(replay_json(shared)["sharing"]["saved_pages_most"], 32 + 37);
  EXPECT_EQ(replay_json(shared)["steps"]["table_pages"][0], 109);

  options.share_prefixes = false;
  ReplayResult const apart = replay(options);
  EXPECT_TRUE(apart.checks_passed());
  EXPECT_EQ(apart.counts.with_prefix, 0);
  EXPECT_EQ(apart.steps[0].pages, 38 + 33 + 38);
  EXPECT_NE(replay_text(apart).find("switched off"), std::string::npos);
}

TEST(Replay, WorkAndFloorOfKnownSteps) {
  ReplayResult result;
  result.shape.layers = 3;
  result.shape.heads = 16;
  result.ceilings = {1e9, 1e12};
  result.steps = {{1, 0, 1000, 1000, 16, 16, 0, 0.5}};
  EXPECT_DOUBLE_EQ(result.work().flop, 3 * 2.0 * 16 * 1000 * 1088);
  EXPECT_DOUBLE_EQ(result.work().bytes, 3 * (1000.0 * 1152 + 16 * 1088 * 2));
  EXPECT_DOUBLE_EQ(result.floor(), result.work().bytes / 1e9);
}

TEST(ChooseSizes, TakesWhatIsGiven) {
  auto const device = open_host_device();
  ReplayOptions options = small_options("t");
  ReplaySizes const sizes = choose_sizes(options, *device, kFast);
  EXPECT_EQ(sizes.shape.num_pages, 40);
  EXPECT_EQ(sizes.shape.layers, 2);
  EXPECT_EQ(sizes.shape.heads, 4);
  EXPECT_EQ(sizes.steps, 1000);
  options.pages = 0;
  options.memory_gib = 1.0 / 1024;  // 1 MiB: 28 pages of 16 tokens in 2 layers
  EXPECT_EQ(choose_sizes(options, *device, kFast).shape.num_pages, 28);
}

TEST(ChooseSizes, DemoShrinksOnASlowMachineAndObeysOptions) {
  auto const device = open_host_device();
  ReplayOptions options;
  options.demo = true;
  ReplaySizes const fast = choose_sizes(options, *device, kFast);
  ReplaySizes const slow = choose_sizes(options, *device, {5e9, 10e9});
  EXPECT_GT(fast.shape.num_pages, slow.shape.num_pages);
  EXPECT_GE(slow.shape.num_pages, 512);
  EXPECT_LE(engine_bytes(fast.shape), int64_t{2} << 30);
  EXPECT_GT(fast.seconds, 0);
  options.heads = 128;
  EXPECT_EQ(choose_sizes(options, *device, kFast).shape.heads, 128);
}

TEST(ChooseSizes, MoreThanTheMemoryIsAUsageError) {
  auto const device = open_host_device();
  ReplayOptions options = small_options("t");
  options.pages = int64_t{1} << 30;
  EXPECT_THROW(choose_sizes(options, *device, kFast), UsageError);
  options.pages = 0;
  options.memory_gib = 1e-9;
  EXPECT_THROW(choose_sizes(options, *device, kFast), UsageError);
}

TEST(ReplayReport, TextJsonAndPictureAgree) {
  TraceFile const trace(line(0, 100, 5) + line(0, 200, 7));
  ReplayResult const result = replay(small_options(trace.path()));
  std::string const text = replay_text(result);
  for (char const* const part : {"tokens/s", "p50", "p99", "GB/s", "TFLOPS", "padded", "contiguous", "sharing", "passed: 3 outputs"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  auto const json = replay_json(result);
  EXPECT_EQ(json["served"]["tokens"], 12);
  EXPECT_EQ(json["steps"]["seconds"].size(), result.steps.size());
  EXPECT_TRUE(json["checks_passed"].get<bool>());
  std::string const picture = replay_picture(result);
  EXPECT_EQ(xml_defect(picture), "");
  for (char const* const part :
       {"Requests in the batch", "KV cache of all layers", "Time per step", "GB/s", "TFLOPS", ">step<", ">ms<", ">GiB<"})
    EXPECT_NE(picture.find(part), std::string::npos) << part;
}

}  // namespace
}  // namespace flashmla::tools
