#include "tools/flashmla/bench_run.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

TEST(BenchAxes, EveryCombinationOnce) {
  BenchAxes axes{{16, 128}, {1, 2, 3}, {64}, {1, 2}, {64}, {ElementType{}}};
  auto const cases = combinations(axes);
  EXPECT_EQ(cases.size(), 12u);
  EXPECT_EQ(cases.front().heads, 16);
  EXPECT_EQ(cases.back().heads, 128);
  EXPECT_EQ(cases.back().batch, 3);
  EXPECT_EQ(cases.back().q_tokens, 2);
}

TEST(BenchLengths, SpreadOverATrace) {
  Trace trace;
  for (int i = 0; i < 10; ++i) trace.requests.push_back({0.0, 100 * i, 10});
  EXPECT_EQ(trace_lengths(trace, 3), (std::vector<int32_t>{5, 305, 605}));
  EXPECT_EQ(trace_lengths(trace, 20).back(), 905);
  BenchCase shape;
  shape.batch = 3;
  EXPECT_EQ(shape.total_tokens(), 3 * 4096);
  shape.lengths = trace_lengths(trace, 3);
  EXPECT_EQ(shape.total_tokens(), 915);
  EXPECT_EQ(shape.length(2), 605);
}

TEST(BenchWork, CountsFlopAndBytes) {
  Work const work = decode_work(2, 3, 1000, 16);
  EXPECT_DOUBLE_EQ(work.flop, 2.0 * 16 * 3 * 1000 * 1088);
  EXPECT_DOUBLE_EQ(work.bytes, 1000.0 * 1152 + 2 * 3 * 16 * 1088 * 2);
  Work const short_keys = decode_work(1, 2, 100, 4, {kBf16, kKvBf16_288, 288, 256});
  EXPECT_DOUBLE_EQ(short_keys.flop, 2.0 * 4 * 2 * 100 * 544);
  EXPECT_DOUBLE_EQ(short_keys.bytes, 100.0 * 576 + 2 * 4 * 544 * 2);
  EXPECT_DOUBLE_EQ(floor_seconds({100, 10}, {10, 20}), 5);
  EXPECT_DOUBLE_EQ(floor_seconds({10, 100}, {10, 20}), 10);
}

TEST(Undisturbed, DropsRoundsOfASlowMachine) {
  Work const work{100, 1};
  std::vector<BenchRound> const rounds = {{1, {1, 100}}, {2, {1, 50}}, {3, {1, 95}}};
  auto const kept = undisturbed(rounds, work);
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_EQ(kept[0].seconds, 1);
  EXPECT_EQ(kept[1].seconds, 3);
}

TEST(BenchResult, FractionOfFloorPairsRoundsWithTheirCeilings) {
  BenchResult result;
  result.work = {100, 1};
  result.rounds = {{2, {100, 100}}, {4, {100, 50}}};  // floors 1 and 2
  EXPECT_DOUBLE_EQ(result.fraction_of_floor(), 0.5);
  EXPECT_DOUBLE_EQ(result.best_seconds(), 2);
}

TEST(RunBench, MeasuresAndChecksItself) {
  auto const device = open_host_device();
  Target target(kCpu);
  target.num_threads = 1;
  for (int32_t const q_tokens : {1, 3}) {
    BenchCase const shape{4, 2, 100, q_tokens, 16, {}};
    int64_t rounds = 0;
    BenchResult const result = run_bench(shape, target, *device, 2, [&](int64_t done) { rounds = done; });
    EXPECT_GE(rounds, 1);
    EXPECT_GT(result.median_seconds(), 0);
    EXPECT_LE(result.best_seconds(), result.median_seconds());
    EXPECT_TRUE(result.correct()) << result.error.relative;
    EXPECT_GT(result.ceilings.bytes_per_s, 0);
    EXPECT_GT(result.ceilings.flop_per_s, 0);
  }
}

}  // namespace
}  // namespace flashmla::tools
