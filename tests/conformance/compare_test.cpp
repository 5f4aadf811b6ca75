// The comparer lets rounding pass and catches planted errors.
#include "conformance/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "conformance/random.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::string name(size_t i) { return "x[" + std::to_string(i) + "]"; }

struct Pair {
  std::vector<double> expected, actual;
};

/// Numbers as outputs have them, and the same after rounding to BF16.
Pair rounded_pair() {
  Pair pair;
  Random random(11);
  for (int i = 0; i < 4096; ++i) {
    pair.expected.push_back(0.05 * random.normal());
    pair.actual.push_back(reference::decode_float(reference::kBf16, reference::encode_float(reference::kBf16, pair.expected.back())));
  }
  return pair;
}

Comparison compare_out(Pair const& pair) { return compare(pair.actual, pair.expected, out_tolerance(FLASHMLA_BF16, FLASHMLA_BF16), name); }

TEST(Compare, RoundingPasses) {
  Comparison const result = compare_out(rounded_pair());
  EXPECT_TRUE(result.ok) << result.text;
  EXPECT_GT(result.relative_l2, 1e-3);
  EXPECT_LT(result.relative_l2, 2e-3);
  EXPECT_FALSE(compare(rounded_pair().actual, rounded_pair().expected, out_tolerance(FLASHMLA_FP16, FLASHMLA_FP16), name).ok)
      << "BF16 is no FP16";
}

TEST(Compare, OneWrongElementIsNamed) {
  Pair pair = rounded_pair();
  pair.expected[1234] = 0.5;
  pair.actual[1234] = 0.52;
  Comparison const result = compare_out(pair);
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.text.find("1 of 4096 elements differ; first x[1234] is 0.52, expected 0.5"), std::string::npos) << result.text;
}

TEST(Compare, AbsoluteOrRelativeSuffices) {
  Tolerance const tolerance{1e-3, 1e-2, 1, 1, kInfinity};
  EXPECT_TRUE(compare(std::vector{100.9}, std::vector{100.0}, tolerance, name).ok);
  EXPECT_TRUE(compare(std::vector{0.0009}, std::vector{0.0001}, Tolerance{1e-3, 1e-2, 1, 100, kInfinity}, name).ok);
  EXPECT_FALSE(compare(std::vector{101.5}, std::vector{100.0}, tolerance, name).ok);
}

TEST(Compare, InfinitiesAndNanStandInTheSamePlaces) {
  for (auto const& [actual, expected, ok] : {std::tuple{kInfinity, kInfinity, true},
                                             {-kInfinity, -kInfinity, true},
                                             {kNan, kNan, true},
                                             {-kInfinity, kInfinity, false},
                                             {kInfinity, 1.0, false},
                                             {1.0, kInfinity, false},
                                             {kNan, 1.0, false},
                                             {1.0, kNan, false},
                                             {kNan, kInfinity, false}}) {
    Pair pair = rounded_pair();
    pair.actual[7] = actual;
    pair.expected[7] = expected;
    EXPECT_EQ(compare_out(pair).ok, ok) << actual << " for " << expected;
  }
}

TEST(Compare, ASmallErrorEverywhereIsCaughtBySums) {
  Pair pair = rounded_pair();
  for (double& x : pair.actual) x *= 1.006;  // within the relative bound of an element
  EXPECT_NE(compare_out(pair).text.find("relative L2 error"), std::string::npos);
  pair = rounded_pair();
  for (size_t i = 0; i < pair.actual.size(); ++i) pair.actual[i] += i % 2 == 0 ? 5e-4 : -5e-4;  // within the absolute one
  EXPECT_NE(compare_out(pair).text.find("cosine difference"), std::string::npos);
}

TEST(Compare, LseHasABoundThatNoRelativeErrorExcuses) {
  std::vector<double> const expected{5, 100};
  EXPECT_TRUE(compare(std::vector{5.000009, 100.000009}, expected, lse_tolerance(FLASHMLA_CUDA), name).ok);
  EXPECT_FALSE(compare(std::vector{5.000009, 100.00002}, expected, lse_tolerance(FLASHMLA_CUDA), name).ok);
  EXPECT_TRUE(compare(std::vector{5.000009, 100.00002}, expected, lse_tolerance(FLASHMLA_CPU), name).ok);
}

TEST(Compare, ZerosAreEqual) {
  std::vector<double> const zeros(8, 0.0);
  EXPECT_TRUE(compare(zeros, zeros, out_tolerance(FLASHMLA_BF16, FLASHMLA_BF16), name).ok);
  std::vector<double> tiny(8, 1e-5);
  EXPECT_FALSE(compare(tiny, zeros, out_tolerance(FLASHMLA_BF16, FLASHMLA_BF16), name).ok);
}

TEST(Compare, FirstDifference) {
  std::vector<std::byte> const a(100, std::byte{1});
  std::vector<std::byte> b = a;
  EXPECT_EQ(first_difference(a, b), -1);
  b[42] = std::byte{2};
  EXPECT_EQ(first_difference(a, b), 42);
  b = a;
  b.pop_back();
  EXPECT_EQ(first_difference(a, b), 99);
}

}  // namespace
}  // namespace flashmla::conformance
