#include "reference/merge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace flashmla::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Parts of one token and head whose out has two numbers.
struct Parts {
  std::vector<float> out, lse;
  core::MergeCall call;
  float merged[2] = {kNan, kNan};
  float merged_lse = kNan;

  void merge() {
    call.num_parts = static_cast<int64_t>(lse.size());
    call.tokens = call.heads = 1;
    call.v_dim = 2;
    call.out_dtype = FLASHMLA_FP32;
    call.partial_out = out.data();
    call.partial_lse = lse.data();
    call.partial_out_stride[0] = 2;
    call.partial_lse_stride[0] = 1;
    call.out = merged;
    call.lse = &merged_lse;
    reference::merge(call);
  }
};

TEST(Merge, WeighsPartsByTheirSums) {
  Parts parts{{4, 0, 8, 100}, {0, static_cast<float>(std::log(3.0))}, {}};
  parts.merge();
  EXPECT_NEAR(parts.merged[0], 0.25 * 4 + 0.75 * 8, 1e-6);
  EXPECT_NEAR(parts.merged[1], 75, 1e-5);
  EXPECT_NEAR(parts.merged_lse, std::log(4.0), 1e-6);
}

TEST(Merge, OnePartIsItself) {
  Parts parts{{4, -1}, {-300}, {}};
  parts.merge();
  EXPECT_EQ(parts.merged[0], 4);
  EXPECT_EQ(parts.merged[1], -1);
  EXPECT_EQ(parts.merged_lse, -300);
}

TEST(Merge, EmptyPartsAreNotRead) {
  Parts parts{{kNan, kNan, 8, 5, kNan, kNan}, {kInfinity, 1.5f, -kInfinity}, {}};
  parts.merge();
  EXPECT_EQ(parts.merged[0], 8);
  EXPECT_EQ(parts.merged[1], 5);
  EXPECT_EQ(parts.merged_lse, 1.5f);
}

TEST(Merge, AllEmptyIsZero) {
  static float const sink = 1;
  for (float const* const s : {static_cast<float const*>(nullptr), &sink})
    for (auto const& [option, lse] :
         {std::pair{FLASHMLA_EMPTY_LSE_PLUS_INF, kInfinity}, std::pair{FLASHMLA_EMPTY_LSE_MINUS_INF, -kInfinity}}) {
      Parts parts{{kNan, kNan, kNan, kNan}, {kInfinity, -kInfinity}, {}};
      parts.call.empty_row = option;
      parts.call.sink = s;
      parts.merge();
      EXPECT_EQ(parts.merged[0], 0);
      EXPECT_EQ(parts.merged[1], 0);
      EXPECT_EQ(parts.merged_lse, lse);
    }
}

TEST(Merge, BaseTwoAndANaturalSink) {
  Parts parts{{4, 0, 8, 0}, {0, static_cast<float>(std::log2(3.0))}, {}};
  float const sink = static_cast<float>(std::log(12.0));  // 4 of 4 + 12
  parts.call.lse_base = FLASHMLA_LSE_BASE_2;
  parts.call.sink = &sink;
  parts.merge();
  EXPECT_NEAR(parts.merged[0], 7 * 0.25, 1e-6);
  EXPECT_NEAR(parts.merged_lse, 2, 1e-6);
}

}  // namespace
}  // namespace flashmla::reference
