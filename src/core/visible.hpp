// Which keys a query token sees: the one function behind every mask, shared by host, device and reference.
#pragma once

#include <cstdint>

namespace flashmla::core {

/// Number of leading keys that query token `q_idx` of a request sees. Bottom-right causal rule: with `q_tokens` new
/// tokens at the end of `kv_len`, token i sees the keys before kv_len - q_tokens + i + 1.
constexpr int32_t num_visible(int32_t kv_len, int32_t q_tokens, int32_t q_idx, bool causal) {
  if (!causal) return kv_len;
  int32_t const visible = kv_len - q_tokens + q_idx + 1;
  return visible > 0 ? visible : 0;
}

/// The same with an optional explicit view (null when absent), which replaces the rule; clamped to [0, kv_len].
/// `visible_len` points at this request's first query token.
constexpr int32_t num_visible(int32_t kv_len, int32_t q_tokens, int32_t q_idx, bool causal, int32_t const* visible_len) {
  if (visible_len == nullptr) return num_visible(kv_len, q_tokens, q_idx, causal);
  int32_t const visible = visible_len[q_idx];
  return visible < 0 ? 0 : (visible > kv_len ? kv_len : visible);
}

}  // namespace flashmla::core
