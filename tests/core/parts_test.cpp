#include "core/parts.hpp"

#include <gtest/gtest.h>

#include <cstdint>

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

TEST(ScheduleMatches, OnlyItsOwnRows) {
  PlanShape const shape{64, 64, 8, 5, 1};
  ScheduleHeader const header{kScheduleMagic, 3, 2, 4, 8, 0, 64, 64};
  EXPECT_TRUE(schedule_matches(header, shape, 3, 2, 128));
  EXPECT_FALSE(schedule_matches(header, shape, 4, 2, 128));
  EXPECT_FALSE(schedule_matches(header, shape, 3, 1, 128));
  EXPECT_FALSE(schedule_matches(header, shape, 3, 2, 16));
  EXPECT_FALSE(schedule_matches(ScheduleHeader{}, shape, 3, 2, 128));
  ScheduleHeader larger = header;
  larger.num_workers = 9;
  EXPECT_FALSE(schedule_matches(larger, shape, 3, 2, 128));
}

}  // namespace
}  // namespace flashmla::core
