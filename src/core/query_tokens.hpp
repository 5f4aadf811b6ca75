// Which query tokens are a request's: the one function behind ragged queries, shared by host, device and reference.
//
// With q_offsets, the query tokens of all requests lie one behind the other in views without a batch dimension: request r has
// rows [q_offsets[r], q_offsets[r + 1]). Rows in front of the first offset and behind the last are nobody's. Offsets live in
// device memory, so that nobody can refuse bad ones: they are clamped, each request by itself, to rows that exist.
#pragma once

#include <cstdint>

namespace flashmla::core {

/// Query token t of the request is token `first + t` of the views. In uniform batches `first` is 0: there the batch stride
/// leads to the request, which is 0 with q_offsets.
struct QueryTokens {
  int32_t first;
  int32_t count;
};

/// Of a call's q_offsets (null: every request has `q_tokens`), where q has `total_q` tokens and no request more than `q_tokens`.
struct QueryBounds {
  int32_t const* q_offsets;  // [batch + 1] or null
  int32_t q_tokens;          // of every request, or the most that one may have
  int64_t total_q;           // INT32_MAX where q is not known
};

/// The tokens between two offsets, inside [0, total_q] and no more than the bound; none where they fall.
constexpr QueryTokens clamp_query_tokens(QueryBounds const& bounds, int32_t begin, int32_t end) {
  int64_t const total = bounds.total_q < INT32_MAX ? bounds.total_q : INT32_MAX;
  int64_t const first = begin < 0 ? 0 : (begin < total ? begin : total);
  int64_t const most = first + bounds.q_tokens < total ? first + bounds.q_tokens : total;
  int64_t const last = end < first ? first : (end < most ? end : most);
  return {static_cast<int32_t>(first), static_cast<int32_t>(last - first)};
}

constexpr QueryTokens query_tokens(QueryBounds const& bounds, int32_t request) {
  if (bounds.q_offsets == nullptr) return {0, bounds.q_tokens};
  return clamp_query_tokens(bounds, bounds.q_offsets[request], bounds.q_offsets[request + 1]);
}

/// The first of a request's two offsets that had to be clamped: 0, or 1 for its end; -1 if both are good.
constexpr int32_t bad_query_offset(QueryBounds const& bounds, int32_t begin, int32_t end) {
  if (begin < 0 || begin > bounds.total_q) return 0;
  bool const is_good = end >= begin && end <= bounds.total_q && static_cast<int64_t>(end) - begin <= bounds.q_tokens;
  return is_good ? -1 : 1;
}

/// Where the visible lengths of a request's query tokens begin in [tokens] of the whole call.
constexpr int64_t visible_offset(QueryBounds const& bounds, int32_t request, QueryTokens tokens) {
  return bounds.q_offsets == nullptr ? static_cast<int64_t>(request) * bounds.q_tokens : tokens.first;
}

}  // namespace flashmla::core
