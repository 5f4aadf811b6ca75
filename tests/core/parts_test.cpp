#include "core/parts.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace flashmla::core {
namespace {

static_assert(clamp_length(-1, 100) == 0 && clamp_length(7, 100) == 7 && clamp_length(101, 100) == 100 && clamp_length(5, 0) == 0);
static_assert(length_limit(4, 64, 0) == 256 && length_limit(4, 64, 100) == 100 && length_limit(4, 64, 1000) == 256);
static_assert(length_limit(INT64_MAX / 2, 64, 0) == INT32_MAX && length_limit(INT64_MAX / 2, 64, 77) == 77 && length_limit(0, 64, 5) == 0);

// The walk is usable in constant expressions, and so in device code.
constexpr int32_t tokens_of(WorkerBegin begin, WorkerBegin end, int32_t kv_len) {
  int32_t tokens = 0;
  for (PartWalk walk(begin, end, 2, 64); walk.has_item(); walk.advance()) {
    Part const part = walk.part(kv_len);
    tokens += part.last_token - part.first_token;
  }
  return tokens;
}
static_assert(tokens_of({0, 0, 0, 0, 0}, {1, 0, 0, 0, 0}, 100) == 200);
static_assert(tokens_of({0, 1, 1, 1, 2}, {1, 0, 0, 0, 0}, 100) == 36);
static_assert(tokens_of({0, 0, 0, 0, 0}, {0, 1, 1, 1, 2}, 100) == 164);
static_assert(tokens_of({1, 0, 0, 0, 0}, {1, 0, 0, 0, 0}, 100) == 0);

TEST(PartWalk, WalksFromTheMiddleOfOneItemIntoAnother) {
  PartWalk walk({3, 1, 2, 4, 5}, {5, 0, 1, 1, 3}, 2, 64);
  ASSERT_TRUE(walk.has_item());
  Part part = walk.part(200);  // item (3, 1) goes on from tile 2 to its end
  EXPECT_EQ(part.request, 3);
  EXPECT_EQ(part.row_tile, 1);
  EXPECT_EQ(part.first_token, 128);
  EXPECT_EQ(part.last_token, 200);
  EXPECT_EQ(part.split, 4);
  EXPECT_EQ(part.num_splits, 5);
  EXPECT_FALSE(part.is_whole());
  walk.advance();
  part = walk.part(10);
  EXPECT_EQ(part.request, 4);
  EXPECT_EQ(part.row_tile, 0);
  EXPECT_TRUE(part.is_whole());
  EXPECT_EQ(part.split, 0);
  walk.advance();
  walk.advance();
  ASSERT_TRUE(walk.has_item());
  part = walk.part(1000);  // item (5, 0) goes on in the next worker
  EXPECT_EQ(part.first_token, 0);
  EXPECT_EQ(part.last_token, 64);
  EXPECT_EQ(part.split, 0);
  EXPECT_EQ(part.num_splits, 3);
  walk.advance();
  EXPECT_FALSE(walk.has_item());
}

TEST(PartWalk, PartsBeyondTheActualEndAreEmpty) {
  PartWalk const middle({0, 0, 4, 1, 3}, {0, 0, 8, 2, 3}, 1, 64);
  Part const part = middle.part(100);
  EXPECT_EQ(part.first_token, 100);
  EXPECT_EQ(part.last_token, 100);
  EXPECT_FALSE(part.is_whole());
  Part const partial = middle.part(300);
  EXPECT_EQ(partial.first_token, 256);
  EXPECT_EQ(partial.last_token, 300);
}

TEST(PartWalk, TheLargestLengthDoesNotOverflow) {
  PartWalk const walk({0, 0, 1 << 30, 1, 2}, {1, 0, 0, 0, 0}, 1, 64);
  Part const part = walk.part(INT32_MAX);
  EXPECT_EQ(part.first_token, INT32_MAX);
  EXPECT_EQ(part.last_token, INT32_MAX);
}

/// Requests with 1, 0, 3 and 2 row tiles.
constexpr int32_t kOffsets[] = {0, 1, 1, 4, 6};
constexpr RaggedRowTiles kRowTiles{{16, 64, 8, 5, 1}, {kOffsets, 3, 6}, 16};

TEST(RaggedPartWalk, PassesOverRequestsWithoutRows) {
  std::vector<std::pair<int32_t, int32_t>> items;
  for (RaggedPartWalk walk({0, 0, 0, 0, 0}, {4, 0, 0, 0, 0}, kRowTiles, 64); walk.has_item(); walk.advance())
    items.emplace_back(walk.request(), walk.row_tile());
  EXPECT_EQ(items, (std::vector<std::pair<int32_t, int32_t>>{{0, 0}, {2, 0}, {2, 1}, {2, 2}, {3, 0}, {3, 1}}));
}

TEST(RaggedPartWalk, ABeginThatDoesNotExistMovesToTheNextRequest) {
  RaggedPartWalk walk({0, 5, 3, 2, 4}, {2, 1, 2, 1, 2}, kRowTiles, 64);
  ASSERT_TRUE(walk.has_item());
  EXPECT_EQ(walk.request(), 2);
  EXPECT_EQ(walk.row_tile(), 0);
  EXPECT_TRUE(walk.part(500).is_whole());  // nothing of the item that was not there is left
  EXPECT_EQ(walk.part(500).first_token, 0);
  walk.advance();
  ASSERT_TRUE(walk.has_item());  // the item that the worker's end cuts
  Part const part = walk.part(500);
  EXPECT_EQ(part.row_tile, 1);
  EXPECT_EQ(part.last_token, 128);
  EXPECT_EQ(part.num_splits, 2);
  walk.advance();
  EXPECT_FALSE(walk.has_item());
}

TEST(RaggedPartWalk, AnEndThatDoesNotExistEndsAtTheNextRequest) {
  RaggedPartWalk walk({2, 2, 1, 1, 2}, {3, 7, 4, 1, 3}, kRowTiles, 64);
  std::vector<std::pair<int32_t, int32_t>> items;
  for (; walk.has_item(); walk.advance()) {
    items.emplace_back(walk.request(), walk.row_tile());
    Part const part = walk.part(100);
    EXPECT_EQ(part.last_token, 100);
    EXPECT_EQ(part.num_splits, walk.request() == 2 ? 2 : 1);
  }
  EXPECT_EQ(items, (std::vector<std::pair<int32_t, int32_t>>{{2, 2}, {3, 0}, {3, 1}}));
  RaggedPartWalk const between({1, 3, 2, 1, 2}, {1, 9, 0, 0, 0}, kRowTiles, 64);  // both inside a request without rows
  EXPECT_FALSE(between.has_item());
}

TEST(RaggedPartWalk, NeverAsksForARequestBeyondTheBatch) {
  constexpr int32_t kNone[] = {5, 5, 5};
  RaggedRowTiles const row_tiles{{16, 64, 8, 5, 1}, {kNone, 3, 6}, 16};
  EXPECT_FALSE(RaggedPartWalk({0, 0, 0, 0, 0}, {2, 0, 0, 0, 0}, row_tiles, 64).has_item());
  EXPECT_FALSE(RaggedPartWalk({1, 3, 1, 1, 2}, {2, 0, 0, 0, 0}, row_tiles, 64).has_item());
  EXPECT_FALSE(RaggedPartWalk({2, 0, 0, 0, 0}, {2, 0, 0, 0, 0}, row_tiles, 64).has_item());
}

TEST(ScheduleMatches, OnlyItsOwnRows) {
  PlanShape const shape{64, 64, 8, 5, 1};
  ScheduleHeader const header{schedule_magic(8, 1), 3, 2, 4, 8, 0, 64, 0, 64};
  EXPECT_TRUE(schedule_matches(header, shape, {3, 2, 128}));
  EXPECT_FALSE(schedule_matches(header, shape, {4, 2, 128}));
  EXPECT_FALSE(schedule_matches(header, shape, {3, 1, 128}));
  EXPECT_FALSE(schedule_matches(header, shape, {3, 2, 16}));
  EXPECT_FALSE(schedule_matches(ScheduleHeader{}, shape, {3, 2, 128}));
  ScheduleHeader larger = header;
  larger.num_workers = 9;
  EXPECT_FALSE(schedule_matches(larger, shape, {3, 2, 128}));
}

TEST(ScheduleMatches, NotThatOfAnotherPlan) {
  PlanShape const shape{64, 64, 8, 5, 1};
  ScheduleHeader const header = expected_header(shape, {3, 2, 128});
  PlanShape more_workers = shape, more_heads = shape;
  more_workers.max_workers = 132;
  more_heads.kv_heads = 2;
  EXPECT_TRUE(schedule_matches(header, shape, {3, 2, 128}));
  EXPECT_FALSE(schedule_matches(header, more_workers, {3, 2, 128}));
  EXPECT_FALSE(schedule_matches(header, more_heads, {3, 2, 128}));
}

TEST(ScheduleMatches, RaggedRowsOfTheSameBatchWhateverTheirBound) {
  PlanShape const shape{64, 64, 8, 5, 1};
  StepRows const ragged{3, 2, 128, kOffsets}, uniform{3, 2, 128};
  ScheduleHeader const header = expected_header(shape, ragged);
  EXPECT_TRUE(schedule_matches(header, shape, ragged));
  EXPECT_TRUE(schedule_matches(header, shape, {3, 7, 128, kOffsets}));
  EXPECT_FALSE(schedule_matches(header, shape, {2, 2, 128, kOffsets}));
  EXPECT_FALSE(schedule_matches(header, shape, uniform));
  EXPECT_FALSE(schedule_matches(expected_header(shape, uniform), shape, ragged));
}

// Numbers of workers and KV heads that a plan can have never give the same word.
TEST(ScheduleMagic, TellsPlansApart) {
  std::set<uint32_t> seen;
  for (int32_t heads = 1; heads <= 128; heads += heads < 8 ? 1 : 20)
    for (int32_t workers = 1; workers <= 4096; ++workers) ASSERT_TRUE(seen.insert(schedule_magic(workers, heads)).second);
  EXPECT_FALSE(seen.contains(0));
  EXPECT_FALSE(seen.contains(0xffffffffU));  // memory that nobody wrote
}

}  // namespace
}  // namespace flashmla::core
