// Batch-invariant work: where the tokens of an item are cut into chunks, and in which order their results are merged.
//
// Both depend on the item's own length alone. Chunk c holds tokens [c * length, (c + 1) * length), has a softmax of its own
// and is computed by one worker: the one whose part contains its first token. Results are merged along a fixed binary tree:
// a *node* is 2^k chunks from a multiple of 2^k, and comes of its two halves. Whoever holds consecutive chunks can therefore
// merge every node that lies inside them, keeps at most two results a level, and changes no bit by it. Where the last node
// is reached, the nodes that remain, one for each bit of the number of chunks, are merged in order.
//
// So a schedule cuts items wherever it balances best, for any number of workers, and memory does not grow with lengths.
#pragma once

#include <bit>
#include <cstdint>

#include "core/planner.hpp"

namespace flashmla::core {

/// Chunks begin on token tiles.
inline constexpr int32_t kChunkUnit = 64;
/// More chunks than these a request never has: longer requests have longer chunks instead.
inline constexpr int32_t kMaxChunks = 256;

/// The chunk size of a problem that names none: results of few heads are small, so their requests can be cut finer.
constexpr int32_t default_chunk_tokens(int32_t h_q) { return h_q <= 32 ? 1024 : 4096; }

/// Tokens a chunk of a request, a multiple of kChunkUnit as chunk_tokens is.
constexpr int32_t chunk_length(int32_t chunk_tokens, int32_t kv_len) {
  if (ceil_div(kv_len, chunk_tokens) <= kMaxChunks) return chunk_tokens;
  return static_cast<int32_t>(ceil_div(ceil_div(kv_len, kMaxChunks), kChunkUnit) * kChunkUnit);
}

/// Chunks of a request, at least 1: somebody has to write its empty rows.
constexpr int32_t num_chunks(int32_t chunk_tokens, int32_t kv_len) {
  return kv_len <= 0 ? 1 : static_cast<int32_t>(ceil_div(kv_len, chunk_length(chunk_tokens, kv_len)));
}

/// Consecutive chunks [first, last); may be empty.
struct ChunkRange {
  int32_t first, last;
};

/// The chunks that begin between two tokens. A request's first part has chunk 0, whatever its tokens: 0 tokens too.
constexpr ChunkRange chunks_between(int32_t chunk_tokens, int32_t kv_len, int64_t first_token, int64_t last_token) {
  int64_t const length = chunk_length(chunk_tokens, kv_len), all = num_chunks(chunk_tokens, kv_len);
  int64_t const first = first_token <= 0 ? 0 : ceil_div(first_token, length), last = last_token <= 0 ? 1 : ceil_div(last_token, length);
  auto const inside = [all](int64_t chunk) { return static_cast<int32_t>(chunk < all ? chunk : all); };
  return {inside(first), inside(last < first ? first : last)};
}

/// `count` chunks, a power of two, from `first`, a multiple of it.
struct ChunkNode {
  int32_t first, count;
};

/// Whether two nodes, the second behind the first, are the halves of one.
constexpr bool are_halves(ChunkNode left, ChunkNode right) { return left.count == right.count && left.first % (2 * left.count) == 0; }

/// The largest node that begins at range.first; what is left after merging whatever can be merged consists of these.
constexpr ChunkNode leading_node(ChunkRange range) {
  int32_t const fits = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(range.last - range.first)));
  int32_t const aligned = range.first == 0 ? fits : range.first & -range.first;
  return {range.first, aligned < fits ? aligned : fits};
}

/// Most nodes that one worker holds at a time of an item with up to `chunks` chunks: two a level.
constexpr int32_t max_nodes(int32_t chunks) {
  int32_t const levels = std::bit_width(static_cast<uint32_t>(chunks - 1));
  return levels == 0 ? 1 : 2 * levels;
}
/// The same for any request that a problem allows; max_kv_len 0 is unbounded.
constexpr int32_t max_nodes(int32_t chunk_tokens, int64_t max_kv_len) {
  int64_t const chunks = max_kv_len > 0 ? ceil_div(max_kv_len, chunk_tokens) : kMaxChunks;
  return max_nodes(chunks < kMaxChunks ? static_cast<int32_t>(chunks) : kMaxChunks);
}

}  // namespace flashmla::core
