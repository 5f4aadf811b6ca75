// Dense decode by hand: calls whose results a person can compute.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "reference/tiny_call.hpp"

namespace flashmla::reference::test {
namespace {

constexpr double kTiny = 1e-12;

TEST(Decode, OneKeyGivesItsValueAndItsScore) {
  TinyCall tiny({1}, 1);
  tiny.clear();
  tiny.problem.scale = 0.5f;
  tiny.set_query(0, 2);
  tiny.set_key(0, 0, 3);
  tiny.set_key(0, 511, 7);
  RowResult const row = tiny.row();
  EXPECT_EQ(row.out[0], 3);
  EXPECT_EQ(row.out[511], 7);
  EXPECT_EQ(row.out.size(), 512u);
  EXPECT_EQ(row.lse, 3);
}

TEST(Decode, TwoKeysShareByTheirScores) {
  TinyCall tiny({2}, 1);
  tiny.clear();
  tiny.problem.scale = static_cast<float>(std::log(3.0));
  tiny.set_query(5, 1);
  tiny.set_key(1, 5, 1);  // scores 0 and log 3: weights 1/4 and 3/4
  tiny.set_key(0, 9, 8);
  tiny.set_key(1, 9, 4);
  RowResult const row = tiny.row();
  EXPECT_NEAR(row.out[9], 0.25 * 8 + 0.75 * 4, 1e-6);
  EXPECT_NEAR(row.lse, std::log(4.0), 1e-6);
}

TEST(Decode, RopeCountsInTheScoreAndNotInTheValue) {
  TinyCall tiny({2}, 1);
  tiny.clear();
  tiny.problem.scale = 1;
  tiny.set_query(575, 1);
  tiny.set_key(0, 575, 2);
  tiny.set_key(1, 512, 9);
  RowResult const row = tiny.row();
  EXPECT_NEAR(row.lse, std::log(std::exp(2.0) + 1), kTiny);
  for (double const x : row.out) EXPECT_EQ(x, 0);
}

TEST(Decode, LargeScoresDoNotOverflow) {
  TinyCall tiny({2}, 1);
  tiny.clear();
  tiny.problem.scale = 100;
  tiny.set_query(0, 100);
  tiny.set_key(0, 0, 100);
  EXPECT_EQ(tiny.row().lse, 1e6);
  EXPECT_EQ(tiny.row().out[0], 100);
}

TEST(Decode, ScaleZeroGivesTheMeanOfWhatIsSeen) {
  TinyCall tiny({5}, 1, 2);
  tiny.problem.scale = 0;
  tiny.problem.causal = true;
  for (int32_t const q_idx : {0, 1}) {
    int32_t const seen = 4 + q_idx;
    double mean = 0;
    for (int32_t t = 0; t < seen; ++t) mean += tiny.key(0, t, 17) / seen;
    EXPECT_NEAR(tiny.row({0, q_idx, 0}).out[17], mean, kTiny);
    EXPECT_NEAR(tiny.row({0, q_idx, 0}).lse, std::log(seen), kTiny);
  }
}

TEST(Decode, BaseTwo) {
  TinyCall tiny({7});
  double const natural = tiny.row().lse;
  tiny.problem.lse_base = FLASHMLA_LSE_BASE_2;
  EXPECT_NEAR(tiny.row().lse, natural / std::numbers::ln2, kTiny);
}

TEST(Decode, EmptyRows) {
  TinyCall tiny({0, 5}, 1, 7);
  tiny.problem.causal = true;  // rows 0 and 1 of request 1 see nothing
  for (Row const row : {Row{0, 3, 0}, Row{1, 0, 0}, Row{1, 1, 0}}) {
    for (double const x : tiny.row(row).out) EXPECT_EQ(x, 0);
    EXPECT_EQ(tiny.row(row).lse, kInfinity);
  }
  EXPECT_TRUE(std::isfinite(tiny.row({1, 2, 0}).lse));
  tiny.problem.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  EXPECT_EQ(tiny.row({0, 0, 0}).lse, -kInfinity);
}

TEST(Decode, SinkTakesItsShare) {
  TinyCall tiny({6}, 4);
  std::vector<RowResult> plain;
  for (int32_t head = 0; head < 4; ++head) plain.push_back(tiny.row({0, 0, head}));
  float const infinity = static_cast<float>(kInfinity);
  tiny.sink = {1.5f, -2.0f, infinity, -infinity};
  for (int32_t head = 0; head < 4; ++head) {
    RowResult const row = tiny.row({0, 0, head});
    double const weight = std::exp(plain[static_cast<size_t>(head)].lse);
    double const factor = head == 2   ? 0
                          : head == 3 ? 1
                                      : weight / (weight + std::exp(static_cast<double>(tiny.sink[static_cast<size_t>(head)])));
    EXPECT_NEAR(row.out[3], factor * plain[static_cast<size_t>(head)].out[3], kTiny);
    EXPECT_EQ(row.lse, plain[static_cast<size_t>(head)].lse);
  }
}

TEST(Decode, EveryQueryHeadUsesTheKvHeadOfItsGroup) {
  TinyCall tiny({3}, 6, 1, 4, 3);
  tiny.problem.scale = 0;
  for (int32_t head = 0; head < 6; ++head) {
    double mean = 0;
    for (int32_t t = 0; t < 3; ++t) mean += tiny.key(0, t, 100, head / 2) / 3;
    EXPECT_NEAR(tiny.row({0, 0, head}).out[100], mean, kTiny) << head;
  }
}

/// The same formula once more, in another order and without a maximum.
TEST(Decode, AgreesWithTheNaiveFormula) {
  TinyCall tiny({11, 3}, 3, 2);
  tiny.problem.causal = true;
  for (int32_t b = 0; b < 2; ++b)
    for (int32_t t = 0; t < 2; ++t)
      for (int32_t h = 0; h < 3; ++h) {
        Row const row{b, t, h};
        long double denominator = 0;
        std::vector<long double> numerator(512);
        for (int32_t key = tiny.kv_len[static_cast<size_t>(b)] - 2 + t; key >= 0; --key) {
          long double score = 0;
          for (int32_t d = 575; d >= 0; --d) score += static_cast<long double>(tiny.query(row, d)) * tiny.key(b, key, d);
          long double const weight = std::exp(score * tiny.problem.scale);
          denominator += weight;
          for (int32_t d = 0; d < 512; ++d) numerator[static_cast<size_t>(d)] += weight * tiny.key(b, key, d);
        }
        RowResult const result = tiny.row(row);
        EXPECT_NEAR(result.lse, static_cast<double>(std::log(denominator)), kTiny);
        for (size_t d = 0; d < 512; ++d) EXPECT_NEAR(result.out[d], static_cast<double>(numerator[d] / denominator), kTiny);
      }
}

TEST(Decode, WritesRoundedRowsThroughStrides) {
  TinyCall tiny({5, 9}, 3, 2);
  core::DecodeCall call = tiny.call();
  std::vector<uint16_t> out(2 * 2 * 3 * 520, 0xffff);
  std::vector<float> lse(12);
  call.out = out.data();
  call.out_stride = {2 * 3 * 520, 3 * 520, 520};
  call.lse = lse.data();
  call.lse_stride = {6, 1, 2};  // [batch, h_q, q_tokens]
  decode(tiny.problem, call);
  for (int32_t b = 0; b < 2; ++b)
    for (int32_t t = 0; t < 2; ++t)
      for (int32_t h = 0; h < 3; ++h) {
        RowResult const row = tiny.row({b, t, h});
        size_t const at = static_cast<size_t>((b * 2 + t) * 3 + h) * 520;
        for (size_t d = 0; d < 512; ++d) EXPECT_EQ(out[at + d], encode_float(kFp16, row.out[d]));
        for (size_t d = 512; d < 520; ++d) EXPECT_EQ(out[at + d], 0xffff);
        EXPECT_EQ(lse[static_cast<size_t>(b * 6 + h * 2 + t)], static_cast<float>(row.lse));
      }
}

}  // namespace
}  // namespace flashmla::reference::test
