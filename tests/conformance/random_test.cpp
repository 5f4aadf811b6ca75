#include "conformance/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conformance/noise.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

TEST(Random, IsTheSameOnEveryMachine) {
  Random random(0);
  EXPECT_EQ(random.next(), 0xe220a8397b1dcdafull);  // the published first outputs of SplitMix64 from seed 0
  EXPECT_EQ(random.next(), 0x6e789e6aa1b965f4ull);
  EXPECT_EQ(seed_of(""), 0xcbf29ce484222325ull);
  EXPECT_EQ(seed_of("a"), 0xaf63dc4c8601ec8cull);
}

TEST(Random, NormalHasMeanZeroAndDeviationOne) {
  Random random(1);
  double sum = 0, squares = 0;
  constexpr int kCount = 200000;
  for (int i = 0; i < kCount; ++i) {
    double const x = random.normal();
    ASSERT_LE(std::abs(x), 3.47);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.01);
  EXPECT_NEAR(squares / kCount, 1, 0.01);
}

TEST(Random, ShuffleKeepsEveryValue) {
  std::vector<int> values(100), sorted(100);
  std::iota(sorted.begin(), sorted.end(), 0);
  values = sorted;
  Random(3).shuffle(values);
  EXPECT_NE(values, sorted);
  std::sort(values.begin(), values.end());
  EXPECT_EQ(values, sorted);
}

TEST(Noise, HasTheDeviationOfACacheInEachType) {
  for (flashmla_dtype const dtype : {FLASHMLA_BF16, FLASHMLA_FP16, FLASHMLA_FP32}) {
    Random random(5);
    double squares = 0;
    for (int i = 0; i < 100; ++i) {
      float row[576];
      copy_noise(random, dtype, row, 576);
      for (int d = 0; d < 576; ++d) squares += std::pow(reference::load(dtype, row, d), 2);
    }
    EXPECT_NEAR(std::sqrt(squares / 57600), kCacheStd, 0.005);
  }
}

}  // namespace
}  // namespace flashmla::conformance
