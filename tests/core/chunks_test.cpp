// Chunks of batch-invariant work: each has one owner, and however they are shared out the same merges happen.
#include "core/chunks.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace flashmla::core {
namespace {

static_assert(chunk_length(1024, 0) == 1024 && chunk_length(1024, 256 * 1024) == 1024);
static_assert(chunk_length(1024, 256 * 1024 + 1) == 1088 && chunk_length(64, INT32_MAX) % kChunkUnit == 0);
static_assert(num_chunks(64, -3) == 1 && num_chunks(64, 0) == 1 && num_chunks(64, 64) == 1 && num_chunks(64, 65) == 2);
static_assert(num_chunks(64, INT32_MAX) <= kMaxChunks && num_chunks(64, 100000) <= kMaxChunks);
static_assert(max_nodes(1) == 1 && max_nodes(2) == 2 && max_nodes(3) == 4 && max_nodes(kMaxChunks) == 16);
static_assert(max_nodes(1024, 0) == 16 && max_nodes(1024, 1024) == 1 && max_nodes(1024, 5000) == 6);
static_assert(are_halves({0, 1}, {1, 1}) && !are_halves({1, 1}, {2, 1}) && are_halves({4, 2}, {6, 2}) && !are_halves({4, 2}, {6, 1}));

/// What a stack of nodes holds after those of `range` were pushed, each merged as soon as it can be.
void push_all(std::vector<ChunkNode>& stack, ChunkRange range, size_t* most) {
  for (int32_t c = range.first; c < range.last; ++c) {
    stack.push_back({c, 1});
    *most = std::max(*most, stack.size());
    while (stack.size() > 1 && are_halves(stack[stack.size() - 2], stack.back())) {
      stack.pop_back();
      stack.back().count *= 2;
    }
  }
}

TEST(Chunks, AWorkerIsLeftWithLeadingNodesAndHasRoomForThem) {
  for (int32_t last = 1; last <= kMaxChunks; ++last) {
    for (int32_t first = 0; first < last; ++first) {
      std::vector<ChunkNode> stack;
      size_t most = 0;
      push_all(stack, {first, last}, &most);
      ASSERT_LE(most, static_cast<size_t>(max_nodes(last))) << first << " to " << last;
      ChunkRange range = {first, last};
      for (ChunkNode const node : stack) {
        ChunkNode const leading = leading_node(range);
        ASSERT_TRUE(leading.first == node.first && leading.count == node.count) << first << " to " << last;
        range.first += node.count;
      }
      ASSERT_EQ(range.first, last);
    }
  }
}

TEST(Chunks, PartsOwnEachChunkOnce) {
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    int32_t const kv_len = static_cast<int32_t>(random() % 3000), chunk_tokens = kChunkUnit * static_cast<int32_t>(1 + random() % 9);
    int32_t next = 0;
    for (int64_t token = 0; token == 0 || token < kv_len;) {
      int64_t const end = token + kChunkUnit * static_cast<int64_t>(1 + random() % 12);
      ChunkRange const range = chunks_between(chunk_tokens, kv_len, token, end < kv_len ? end : kv_len);
      ASSERT_EQ(range.first, next);
      ASSERT_GE(range.last, range.first);
      next = range.last;
      token = end;
    }
    ASSERT_EQ(next, num_chunks(chunk_tokens, kv_len));
    // Parts that lie beyond a request that became shorter have nothing.
    ChunkRange const beyond = chunks_between(chunk_tokens, kv_len, kv_len + 64, kv_len + 900);
    ASSERT_TRUE(beyond.first == beyond.last || kv_len == 0);
  }
}

}  // namespace
}  // namespace flashmla::core
