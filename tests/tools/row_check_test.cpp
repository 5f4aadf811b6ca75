#include "tools/flashmla/row_check.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace flashmla::tools {
namespace {

constexpr uint16_t kOneBf16 = 0x3f80, kTwoBf16 = 0x4000, kThreeBf16 = 0x4040, kNanBf16 = 0x7fc0;
constexpr uint16_t kOneFp16 = 0x3c00, kThreeFp16 = 0x4200;

/// Two tokens, all ones and all threes, met by a query of zeros: both weigh the same, so out is 2 and lse log 2.
RowSample uniform(ElementType type, uint16_t one, uint16_t three, uint16_t out) {
  RowSample sample;
  sample.type = type;
  sample.page_tokens = 2;
  sample.heads = 3;
  sample.kv_len = 2;
  sample.q.assign(3 * 576, 0);
  sample.pages.assign(576, one);
  sample.pages.insert(sample.pages.end(), 576, three);
  sample.out.assign(3 * 512, out);
  sample.lse.assign(3, std::log(2.0F));
  return sample;
}

TEST(RowCheck, RightIsRight) {
  RowError const error = compare_with_reference(uniform({kBf16, kKvBf16_576}, kOneBf16, kThreeBf16, kTwoBf16), 3);
  EXPECT_EQ(error.relative, 0);
  EXPECT_LT(error.lse, 1e-6);
}

TEST(RowCheck, ReadsFp16) {
  EXPECT_EQ(compare_with_reference(uniform({kFp16, kKvFp16_576}, kOneFp16, kThreeFp16, 0x4000), 3).relative, 0);
  EXPECT_NEAR(compare_with_reference(uniform({kFp16, kKvFp16_576}, kOneFp16, kThreeFp16, 0x0001), 3).relative, 1.0, 1e-6)
      << "a denormal number";
}

TEST(RowCheck, WrongIsMeasured) {
  RowSample sample = uniform({kBf16, kKvBf16_576}, kOneBf16, kThreeBf16, kThreeBf16);
  EXPECT_NEAR(compare_with_reference(sample, 3).relative, 0.5, 1e-9);
  sample.lse[1] += 0.25F;
  EXPECT_NEAR(compare_with_reference(sample, 3).lse, 0.25, 1e-6);
}

TEST(RowCheck, NanAndInfinityAreInfinitelyWrong) {
  RowSample sample = uniform({kBf16, kKvBf16_576}, kOneBf16, kThreeBf16, kTwoBf16);
  sample.out[700] = kNanBf16;
  EXPECT_TRUE(std::isinf(compare_with_reference(sample, 3).relative));
  sample = uniform({kBf16, kKvBf16_576}, kOneBf16, kThreeBf16, kTwoBf16);
  sample.lse[2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isinf(compare_with_reference(sample, 3).lse));
}

TEST(RowCheck, SeveralQueryTokensAreCausal) {
  RowSample sample = uniform({kBf16, kKvBf16_576}, kOneBf16, kThreeBf16, kTwoBf16);
  sample.q_tokens = 2;
  sample.q.assign(2 * 3 * 576, 0);
  sample.out.assign(3 * 512, kOneBf16);  // the first query token sees the first key only
  sample.out.insert(sample.out.end(), 3 * 512, kTwoBf16);
  sample.lse = {0, std::log(2.0F), 0, std::log(2.0F), 0, std::log(2.0F)};
  RowError const error = compare_with_reference(sample, 6);
  EXPECT_EQ(error.relative, 0);
  EXPECT_LT(error.lse, 1e-6);
}

TEST(RowCheck, BoundsLeaveRoomForRoundingOnly) {
  EXPECT_EQ(relative_error_bound(kBf16), 2.8e-3);
  EXPECT_EQ(relative_error_bound(kFp16), 4e-4);
}

}  // namespace
}  // namespace flashmla::tools
