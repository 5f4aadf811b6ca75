#include "reference/decode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "core/query_tokens.hpp"
#include "core/visible.hpp"
#include "reference/scalar.hpp"

namespace flashmla::reference {
namespace {

using core::DecodeCall;
using core::Problem;

/// Lengths that a request's query tokens see, if the call says so.
int32_t const* explicit_lengths(DecodeCall const& call, int32_t request) {
  core::QueryBounds const bounds = call.query_bounds();
  return call.visible_len ? call.visible_len + core::visible_offset(bounds, request, core::query_tokens(bounds, request)) : nullptr;
}

/// Leading keys that a query token sees.
int32_t visible_len(Problem const& problem, DecodeCall const& call, int32_t request, int32_t q_idx) {
  int32_t const q_tokens = core::query_tokens(call.query_bounds(), request).count;
  return core::num_visible(clamped_kv_len(problem, call, request), q_tokens, q_idx, problem.causal, explicit_lengths(call, request));
}

/// Element where a row begins.
int64_t row_begin(DecodeCall const& call, core::RowStrides const& s, Row row) {
  int64_t const token = core::query_tokens(call.query_bounds(), row.request).first + int64_t{row.q_idx};
  return row.request * s.batch + token * s.token + row.head * s.head;
}

/// Where a token's key begins.
struct Key {
  int64_t latent;  // element of call.ckv
  int64_t rope;    // element of call.kpe
};

/// The keys that a row sees; a token whose page id names no page is not among them.
std::vector<Key> seen_keys(Problem const& problem, DecodeCall const& call, Row row) {
  std::vector<Key> keys;
  int64_t const kv_head = row.head / (problem.h_q / problem.h_kv);
  int32_t const visible = visible_len(problem, call, row.request, row.q_idx);
  for (int32_t token = 0; token < visible; ++token) {
    int64_t const page = call.page_table[row.request * call.page_table_stride + token / problem.page_tokens];
    int64_t const offset = token % problem.page_tokens;
    if (page < 0 || page >= call.num_pages) continue;
    keys.push_back({page * call.ckv_page_stride + offset * call.ckv_token_stride + kv_head * call.ckv_head_stride,
                    page * call.kpe_page_stride + offset * call.kpe_token_stride + kv_head * call.kpe_head_stride});
  }
  return keys;
}

/// [qk_dim]: latent and RoPE side by side, from wherever the call keeps them.
std::vector<double> load_query(Problem const& problem, DecodeCall const& call, Row row) {
  std::vector<double> q(static_cast<size_t>(problem.format->qk_dim));
  load(problem.q_dtype, call.q_nope, row_begin(call, call.q_nope_stride, row), problem.format->latent, q.data());
  load(problem.q_dtype, call.q_pe, row_begin(call, call.q_pe_stride, row), problem.format->rope, q.data() + problem.format->latent);
  return q;
}

/// [qk_dim]; the first v_dim numbers are the value.
std::vector<double> load_key(Problem const& problem, DecodeCall const& call, Key key) {
  std::vector<double> k(static_cast<size_t>(problem.format->qk_dim));
  load(problem.format->dtype, call.ckv, key.latent, problem.format->latent, k.data());
  load(problem.format->dtype, call.kpe, key.rope, problem.format->rope, k.data() + problem.format->latent);
  return k;
}

void find_bad_offset(DecodeCall const& call, int32_t request, std::vector<flashmla_fault>& found) {
  if (!call.q_offsets) return;
  int32_t const bad = core::bad_query_offset(call.query_bounds(), call.q_offsets[request], call.q_offsets[request + 1]);
  if (bad >= 0) found.push_back({FLASHMLA_FAULT_Q_OFFSETS, request, request + bad, call.q_offsets[request + bad], {}});
}

}  // namespace

int32_t clamped_kv_len(Problem const& problem, DecodeCall const& call, int32_t request) {
  int64_t const declared = problem.max_kv_len > 0 ? problem.max_kv_len : std::numeric_limits<int32_t>::max();
  int64_t const limit = std::min(call.table_pages * problem.page_tokens, declared);
  return static_cast<int32_t>(std::clamp<int64_t>(call.kv_len[request], 0, limit));
}

RowResult decode_row(Problem const& problem, DecodeCall const& call, Row row) {
  RowResult result{std::vector<double>(static_cast<size_t>(problem.format->v_dim), 0.0), 0.0};
  std::vector<Key> const keys = seen_keys(problem, call, row);
  if (keys.empty()) {
    double const infinity = std::numeric_limits<double>::infinity();
    result.lse = problem.empty_row == FLASHMLA_EMPTY_LSE_PLUS_INF ? infinity : -infinity;
    return result;
  }

  std::vector<double> const q = load_query(problem, call, row);
  std::vector<double> scores;  // [keys]
  for (Key const key : keys) {
    std::vector<double> const k = load_key(problem, call, key);
    scores.push_back(problem.scale * std::inner_product(q.begin(), q.end(), k.begin(), 0.0));
  }

  double const max_score = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double const score : scores) sum += std::exp(score - max_score);
  double const lse = max_score + std::log(sum);
  double const sink_factor = call.sink ? 1 / (1 + std::exp(call.sink[row.head] - lse)) : 1;

  for (size_t t = 0; t < keys.size(); ++t) {
    double const weight = std::exp(scores[t] - lse) * sink_factor;
    std::vector<double> const v = load_key(problem, call, keys[t]);
    for (size_t d = 0; d < result.out.size(); ++d) result.out[d] += weight * v[d];
  }
  result.lse = problem.lse_base == FLASHMLA_LSE_BASE_2 ? lse / std::numbers::ln2 : lse;
  return result;
}

void decode(Problem const& problem, DecodeCall const& call) {
  for (int32_t request = 0; request < call.batch; ++request)
    for (int32_t q_idx = 0; q_idx < core::query_tokens(call.query_bounds(), request).count; ++q_idx)
      for (int32_t head = 0; head < problem.h_q; ++head) {
        RowResult const row = decode_row(problem, call, {request, q_idx, head});
        int64_t const out = row_begin(call, call.out_stride, {request, q_idx, head});
        int64_t const lse = row_begin(call, call.lse_stride, {request, q_idx, head});
        for (int32_t d = 0; d < problem.format->v_dim; ++d) store(problem.out_dtype, call.out, out + d, row.out[d]);
        if (call.lse) call.lse[lse] = static_cast<float>(row.lse);
      }
}

std::vector<flashmla_fault> faults(Problem const& problem, DecodeCall const& call) {
  std::vector<flashmla_fault> found;
  for (int32_t request = 0; request < call.batch; ++request) {
    int32_t const kv_len = call.kv_len[request];
    int32_t const clamped = clamped_kv_len(problem, call, request);
    if (kv_len != clamped) found.push_back({FLASHMLA_FAULT_KV_LEN, request, 0, kv_len, {}});
    find_bad_offset(call, request, found);

    int32_t seen = 0;
    for (int32_t q_idx = 0; q_idx < core::query_tokens(call.query_bounds(), request).count; ++q_idx) {
      seen = std::max(seen, visible_len(problem, call, request, q_idx));
      if (!call.visible_len) continue;
      int32_t const visible = explicit_lengths(call, request)[q_idx];
      if (visible < 0 || visible > clamped) found.push_back({FLASHMLA_FAULT_VISIBLE_LEN, request, q_idx, visible, {}});
    }

    for (int32_t entry = 0; static_cast<int64_t>(entry) * problem.page_tokens < seen; ++entry) {
      int32_t const page = call.page_table[request * call.page_table_stride + entry];
      if (page < 0 || page >= call.num_pages) found.push_back({FLASHMLA_FAULT_PAGE_ID, request, entry, page, {}});
    }
  }
  return found;
}

}  // namespace flashmla::reference
