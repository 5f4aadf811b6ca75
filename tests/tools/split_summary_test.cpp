#include "tools/flashmla/split_summary.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

Part part(int32_t worker, int32_t request, int32_t first, int32_t last, int32_t split, int32_t num_splits) {
  return {worker, request, 0, first, last, split, num_splits};
}

TEST(SplitSummary, AddsUpLoads) {
  auto const summary = summarise({part(0, 0, 0, 100, 0, 1), part(0, 1, 0, 100, 0, 2), part(1, 1, 100, 200, 1, 2)}, {100, 200});
  EXPECT_EQ(summary.defect, "");
  EXPECT_EQ(summary.load_tokens.at(0), 200);
  EXPECT_EQ(summary.load_tokens.at(1), 100);
  EXPECT_EQ(summary.largest_tokens, 200);
  EXPECT_DOUBLE_EQ(summary.mean_tokens, 150);
  EXPECT_DOUBLE_EQ(summary.balance, 0.75);
  EXPECT_EQ(summary.split_items, 1);
  EXPECT_EQ(summary.row_tiles, 1);
}

TEST(SplitSummary, AnEmptyRequestHasOneEmptyPart) {
  EXPECT_EQ(summarise({part(0, 0, 0, 0, 0, 1)}, {0}).defect, "");
  EXPECT_NE(summarise({part(0, 0, 0, 0, 0, 2), part(1, 0, 0, 0, 1, 2)}, {0}).defect, "");
}

Part tile(int32_t request, int32_t row_tile, int32_t last) { return {0, request, row_tile, 0, last, 0, 1}; }

TEST(SplitSummary, RaggedRequestsHaveRowTilesOfTheirOwn) {
  std::vector<int32_t> const kv_len = {10, 20, 30}, q_tokens = {1, 0, 9};
  std::vector<Part> const parts = {tile(0, 0, 10), tile(2, 0, 30), tile(2, 1, 30)};
  auto const summary = summarise(parts, kv_len, q_tokens);
  EXPECT_EQ(summary.defect, "");
  EXPECT_EQ(summary.row_tiles, 2);
  EXPECT_EQ(summary.load_tokens.at(0), 70);
  EXPECT_NE(summarise(parts, kv_len, {1, 1, 9}).defect, "") << "a request without a part";
  EXPECT_NE(summarise(parts, kv_len, {9, 0, 9}).defect, "") << "a row tile is missing";
  EXPECT_NE(summarise(parts, kv_len, {1, 0, 0}).defect, "") << "a part without a query token";
  EXPECT_EQ(summarise({}, {10, 20}, {0, 0}).defect, "");
}

TEST(SplitSummary, FindsWhatIsWrong) {
  std::vector<int32_t> const lengths = {100};
  EXPECT_NE(summarise({part(0, 0, 0, 99, 0, 1)}, lengths).defect, "") << "a token is missing at the end";
  EXPECT_NE(summarise({part(0, 0, 0, 50, 0, 2), part(1, 0, 51, 100, 1, 2)}, lengths).defect, "") << "a gap";
  EXPECT_NE(summarise({part(0, 0, 0, 50, 0, 2), part(1, 0, 49, 100, 1, 2)}, lengths).defect, "") << "an overlap";
  EXPECT_NE(summarise({part(0, 0, 0, 100, 0, 2), part(1, 0, 100, 100, 1, 2)}, lengths).defect, "") << "an empty part";
  EXPECT_NE(summarise({part(0, 0, 0, 50, 0, 3), part(1, 0, 50, 100, 1, 3)}, lengths).defect, "") << "a part is missing";
  EXPECT_NE(summarise({part(0, 0, 0, 50, 0, 2), part(1, 0, 50, 100, 0, 2)}, lengths).defect, "") << "two first parts";
  EXPECT_NE(summarise({part(0, 1, 0, 100, 0, 1)}, lengths).defect, "") << "a request that is none";
  EXPECT_NE(summarise({part(0, 0, 0, 100, 0, 1)}, {100, 5}).defect, "") << "a request without a part";
}

}  // namespace
}  // namespace flashmla::tools
