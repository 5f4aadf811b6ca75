#include "tools/flashmla/statistics.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

TEST(Percentile, IsTheNearestRank) {
  std::vector<double> const values = {5, 1, 4, 2, 3};
  EXPECT_EQ(percentile(values, 0.0), 1);
  EXPECT_EQ(percentile(values, 0.5), 3);
  EXPECT_EQ(percentile(values, 0.6), 3);
  EXPECT_EQ(percentile(values, 0.61), 4);
  EXPECT_EQ(percentile(values, 0.99), 5);
  EXPECT_EQ(percentile(values, 1.0), 5);
}

TEST(Percentile, OfNothingIsZero) {
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(smallest({}), 0);
  EXPECT_EQ(largest({}), 0);
}

TEST(Statistics, Simple) {
  EXPECT_EQ(sum({1, 2, 3}), 6);
  EXPECT_EQ(mean({1, 2, 3}), 2);
  EXPECT_EQ(median({1, 2, 3, 4}), 2);
  EXPECT_EQ(smallest({3, 1, 2}), 1);
  EXPECT_EQ(largest({3, 1, 2}), 3);
}

}  // namespace
}  // namespace flashmla::tools
