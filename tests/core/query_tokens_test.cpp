#include "core/query_tokens.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace flashmla::core {
namespace {

constexpr int32_t kOffsets[] = {2, 3, 3, 7};
constexpr QueryBounds kRagged{kOffsets, 4, 9};
constexpr bool same(QueryTokens a, QueryTokens b) { return a.first == b.first && a.count == b.count; }

static_assert(same(query_tokens(kRagged, 0), {2, 1}) && same(query_tokens(kRagged, 1), {3, 0}) && same(query_tokens(kRagged, 2), {3, 4}));
static_assert(same(query_tokens({nullptr, 4, 12}, 2), {0, 4}));
static_assert(visible_offset(kRagged, 2, {3, 4}) == 3 && visible_offset({nullptr, 4, 12}, 2, {0, 4}) == 8);

TEST(QueryTokens, BadOffsetsAreClampedAndNamed) {
  QueryBounds const bounds{kOffsets, 4, 9};
  struct Row {
    int32_t begin, end;
    QueryTokens tokens;
    int32_t bad;
  };
  for (Row const& row : std::vector<Row>{{0, 4, {0, 4}, -1},
                                         {9, 9, {9, 0}, -1},
                                         {3, 2, {3, 0}, 1},                  // falls
                                         {-1, 2, {0, 2}, 0},                 // negative
                                         {2, -5, {2, 0}, 1},                 // falls below 0
                                         {10, 11, {9, 0}, 0},                // beyond q
                                         {7, 11, {7, 2}, 1},                 // ends beyond q
                                         {1, 6, {1, 4}, 1},                  // more than the bound
                                         {INT32_MIN, INT32_MAX, {0, 4}, 0},  // no difference of the two fits
                                         {INT32_MAX, INT32_MIN, {9, 0}, 0}}) {
    QueryTokens const tokens = clamp_query_tokens(bounds, row.begin, row.end);
    EXPECT_TRUE(same(tokens, row.tokens)) << row.begin << " " << row.end << ": " << tokens.first << " + " << tokens.count;
    EXPECT_EQ(bad_query_offset(bounds, row.begin, row.end), row.bad) << row.begin << " " << row.end;
  }
}

TEST(QueryTokens, NoOffsetsLeaveQ) {
  constexpr int32_t kValues[] = {INT32_MIN, -1, 0, 1, 4, 5, 8, 9, 10, INT32_MAX - 1, INT32_MAX};
  for (int64_t const total : {int64_t{0}, int64_t{9}, int64_t{INT32_MAX}, int64_t{1} << 40})
    for (int32_t const bound : {1, 4, INT32_MAX})
      for (int32_t const begin : kValues)
        for (int32_t const end : kValues) {
          QueryBounds const bounds{kValues, bound, total};
          QueryTokens const tokens = clamp_query_tokens(bounds, begin, end);
          ASSERT_GE(tokens.first, 0);
          ASSERT_GE(tokens.count, 0);
          ASSERT_LE(tokens.count, bound);
          ASSERT_LE(int64_t{tokens.first} + tokens.count, total);
          if (bad_query_offset(bounds, begin, end) < 0) {
            ASSERT_TRUE(same(tokens, {begin, end - begin}));
          }
        }
}

}  // namespace
}  // namespace flashmla::core
