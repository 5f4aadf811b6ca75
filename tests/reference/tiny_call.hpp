// A small call of dense decode that owns its memory: FP16 numbers in contiguous tensors, pages in order, random data.
// Tests change what they are about.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "reference/decode.hpp"
#include "reference/scalar.hpp"

namespace flashmla::reference::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct TinyCall {
  core::Problem problem;
  int32_t q_tokens, pages_per_request;
  std::vector<int32_t> kv_len;       // [batch]
  std::vector<int32_t> page_table;   // [batch, pages_per_request]
  std::vector<int32_t> visible_len;  // [batch * q_tokens] or empty
  std::vector<float> sink;           // [h_q] or empty
  std::vector<uint16_t> q;           // [batch, q_tokens, h_q, 576]
  std::vector<uint16_t> cache;       // [num_pages, page_tokens, h_kv, 576]

  TinyCall(std::vector<int32_t> lengths, int32_t h_q = 2, int32_t q_tokens_ = 1, int32_t page_tokens = 4, int32_t h_kv = 1)
      : q_tokens(q_tokens_), pages_per_request(0), kv_len(std::move(lengths)) {
    problem.h_q = h_q;
    problem.h_kv = h_kv;
    problem.page_tokens = page_tokens;
    problem.format = core::find_kv_format(FLASHMLA_KV_FP16_576);
    problem.q_dtype = problem.out_dtype = FLASHMLA_FP16;
    problem.scale = 1.0f / 24;
    for (int32_t const len : kv_len) pages_per_request = std::max(pages_per_request, (len + page_tokens - 1) / page_tokens);
    for (int32_t i = 0; i < static_cast<int32_t>(kv_len.size()) * pages_per_request; ++i) page_table.push_back(i);
    std::mt19937 generator(7);
    std::uniform_real_distribution<double> number(-1, 1);
    q.resize(kv_len.size() * static_cast<size_t>(q_tokens * h_q) * 576);
    cache.resize(page_table.size() * static_cast<size_t>(page_tokens * h_kv) * 576);
    for (uint16_t& x : q) x = encode_float(kFp16, 2 * number(generator));
    for (uint16_t& x : cache) x = encode_float(kFp16, number(generator));
  }

  [[nodiscard]] core::DecodeCall call() const {
    int64_t const heads = problem.h_q, kv_heads = problem.h_kv;
    core::DecodeCall c;
    c.batch = static_cast<int32_t>(kv_len.size());
    c.q_tokens = q_tokens;
    c.q_nope = q.data();
    c.q_pe = q.data() + 512;
    c.q_nope_stride = c.q_pe_stride = {q_tokens * heads * 576, heads * 576, 576};
    c.ckv = cache.data();
    c.kpe = cache.data() + 512;
    c.ckv_page_stride = c.kpe_page_stride = problem.page_tokens * kv_heads * 576;
    c.ckv_token_stride = c.kpe_token_stride = kv_heads * 576;
    c.ckv_head_stride = c.kpe_head_stride = 576;
    c.num_pages = static_cast<int64_t>(cache.size()) / c.ckv_page_stride;
    c.page_table = page_table.data();
    c.page_table_stride = c.table_pages = pages_per_request;
    c.kv_len = kv_len.data();
    c.visible_len = visible_len.empty() ? nullptr : visible_len.data();
    c.sink = sink.empty() ? nullptr : sink.data();
    return c;
  }

  /// Index in `cache` of a request's token, through the page table.
  [[nodiscard]] size_t token_at(int32_t request, int32_t token, int32_t kv_head = 0) const {
    int32_t const page = page_table[static_cast<size_t>(request * pages_per_request + token / problem.page_tokens)];
    return static_cast<size_t>((page * problem.page_tokens + token % problem.page_tokens) * problem.h_kv + kv_head) * 576;
  }
  [[nodiscard]] double key(int32_t request, int32_t token, int32_t d, int32_t kv_head = 0) const {
    return decode_float(kFp16, cache[token_at(request, token, kv_head) + static_cast<size_t>(d)]);
  }
  [[nodiscard]] double query(Row row, int32_t d) const {
    return decode_float(
        kFp16, q[static_cast<size_t>((row.request * q_tokens + row.q_idx) * problem.h_q + row.head) * 576 + static_cast<size_t>(d)]);
  }
  void set_query(int32_t d, double value) { q[static_cast<size_t>(d)] = encode_float(kFp16, value); }  // of row 0
  void set_key(int32_t token, int32_t d, double value) { cache[token_at(0, token) + static_cast<size_t>(d)] = encode_float(kFp16, value); }
  void clear() {
    std::fill(q.begin(), q.end(), uint16_t{0});
    std::fill(cache.begin(), cache.end(), uint16_t{0});
  }
  [[nodiscard]] RowResult row(Row r = {0, 0, 0}) const { return decode_row(problem, call(), r); }
};

}  // namespace flashmla::reference::test
