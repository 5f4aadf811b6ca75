// One decode call on the CPU backend, with every byte that must not be read set to NaN or junk, and its verdict.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/backend.hpp"
#include "cpu/backend.hpp"
#include "reference/decode.hpp"
#include "reference/scalar.hpp"

namespace flashmla::cpu::test {

/// Memory as a caller would own it: 256-byte aligned, filled with bytes that are NaN as any float.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : storage_(bytes + 256, 0xff) {}
  [[nodiscard]] void* data() { return storage_.data() + (256 - reinterpret_cast<uintptr_t>(storage_.data()) % 256) % 256; }

 private:
  std::vector<uint8_t> storage_;
};

struct CallSetup {
  flashmla_kv_format format = FLASHMLA_KV_BF16_576;
  flashmla_dtype out_dtype = FLASHMLA_FP32;
  int32_t h_q = 16, h_kv = 1, q_tokens = 1, page_tokens = 64;
  bool causal = false;
  float scale = 1 / 24.0f;
  std::vector<int32_t> kv_len = {130};
  bool pair_q = false, pair_cache = false;  // the rope parts in tensors of their own
  bool sink = false;
  flashmla_lse_base lse_base = FLASHMLA_LSE_NATURAL;
  flashmla_empty_row empty_row = FLASHMLA_EMPTY_LSE_PLUS_INF;
  flashmla_isa isa = FLASHMLA_ISA_AUTO;
  int32_t threads = 1;
  flashmla_executor executor{};
  bool batch_invariant = false;
};

inline core::Problem problem_of(CallSetup const& s) {
  core::Problem problem;
  problem.h_q = s.h_q;
  problem.h_kv = s.h_kv;
  problem.format = core::find_kv_format(s.format);
  problem.page_tokens = s.page_tokens;
  problem.q_dtype = problem.format->dtype;
  problem.out_dtype = s.out_dtype;
  problem.lse_base = s.lse_base;
  problem.empty_row = s.empty_row;
  problem.causal = s.causal;
  problem.scale = s.scale;
  problem.batch_invariant = s.batch_invariant;
  problem.chunk_tokens = s.batch_invariant ? 64 : 0;
  problem.max_batch = static_cast<int64_t>(s.kv_len.size());
  problem.max_q_tokens = s.q_tokens;
  return problem;
}

/// The tensors of a call. Change `call`, `kv_len` or `table` before running to make it different.
class DecodeFixture {
 public:
  explicit DecodeFixture(CallSetup const& s) : setup_(s), problem(problem_of(s)), kv_len(s.kv_len) {
    make_queries();
    make_cache();
    call.batch = batch();
    call.q_tokens = s.q_tokens;
    call.kv_len = kv_len.data();
    out.assign(num_rows() * 512 * 4, 0xff);
    call.out = out.data();
    call.out_stride = {static_cast<int64_t>(s.q_tokens) * s.h_q * 512, s.h_q * 512, 512};
    lse.assign(num_rows(), std::numeric_limits<float>::quiet_NaN());
    call.lse = lse.data();
    call.lse_stride = {static_cast<int64_t>(s.q_tokens) * s.h_q, 1, s.q_tokens};
    for (int32_t h = 0; h < s.h_q; ++h)
      sinks.push_back(h % 5 == 0   ? std::numeric_limits<float>::infinity()
                      : h % 5 == 1 ? -std::numeric_limits<float>::infinity()
                                   : 0.5f * static_cast<float>(h % 7));
    if (s.sink) call.sink = sinks.data();
    use_plan(make_backend()->make_plan(problem, target()));
  }

  /// With a schedule and a workspace of its own.
  void use_plan(std::unique_ptr<core::DecodePlan> other) {
    plan = std::move(other);
    schedule = std::make_unique<Buffer>(plan->schedule_bytes());
    workspace = std::make_unique<Buffer>(plan->workspace_bytes());
    plan->reset(workspace->data(), nullptr);
  }

  [[nodiscard]] int32_t batch() const { return static_cast<int32_t>(kv_len.size()); }
  [[nodiscard]] size_t num_rows() const { return kv_len.size() * static_cast<size_t>(setup_.q_tokens) * static_cast<size_t>(setup_.h_q); }
  [[nodiscard]] core::Target target() const {
    core::Target target;
    target.isa = setup_.isa;
    target.num_threads = setup_.threads;
    target.executor = setup_.executor;
    return target;
  }

  /// Hands the query tokens to requests by offsets [batch + 1] instead; there are batch * q_tokens as before.
  void use_offsets(std::vector<int32_t> offsets) {
    q_offsets = std::move(offsets);
    call.q_offsets = q_offsets.data();
    call.total_q = static_cast<int64_t>(batch()) * setup_.q_tokens;
    call.q_nope_stride.batch = call.q_pe_stride.batch = call.out_stride.batch = 0;
    call.lse_stride = {0, setup_.h_q, 1};
  }

  void update() { plan->update({batch(), setup_.q_tokens, kv_len.data(), call.q_offsets}, schedule->data(), nullptr); }
  void run() { plan->run(call, schedule->data(), workspace->data(), nullptr); }
  flashmla_fault fault() {
    flashmla_fault fault;
    plan->fault(workspace->data(), nullptr, fault);
    return fault;
  }

  /// Compares every row, or about `max_rows` of them, with the definition.
  void expect_correct(size_t max_rows = 200) {
    double error = 0, norm = 0;
    size_t const step = std::max<size_t>(1, num_rows() / max_rows);
    for (size_t i = 0; i < num_rows(); i += step) {
      core::RowStrides const& s = call.lse_stride;
      reference::Row const row = {static_cast<int32_t>(i / static_cast<size_t>(setup_.q_tokens * setup_.h_q)),
                                  static_cast<int32_t>(i) / setup_.h_q % setup_.q_tokens, static_cast<int32_t>(i) % setup_.h_q};
      core::QueryTokens const tokens = core::query_tokens(call.query_bounds(), row.request);
      if (row.q_idx >= tokens.count) continue;
      int64_t const token = tokens.first + row.q_idx;
      reference::RowResult const want = reference::decode_row(problem, call, row);
      float const got_lse = lse[static_cast<size_t>(row.request * s.batch + token * s.token + row.head * s.head)];
      if (std::isinf(want.lse)) {
        EXPECT_EQ(got_lse, want.lse) << where(row);
      } else {
        EXPECT_NEAR(got_lse, want.lse, 1e-5 * std::max(1.0, std::abs(want.lse) / 8)) << where(row);
      }
      for (int64_t d = 0; d < 512; ++d) {
        int64_t const at = row.request * call.out_stride.batch + token * call.out_stride.token + row.head * call.out_stride.head + d;
        double const got = reference::load(problem.out_dtype, call.out, at), expected = want.out[static_cast<size_t>(d)];
        ASSERT_FALSE(std::isnan(got)) << where(row) << " column " << d;
        error += (got - expected) * (got - expected);
        norm += expected * expected;
      }
    }
    EXPECT_LE(std::sqrt(error), tolerance() * std::sqrt(norm) + 1e-30);
  }

 private:
  CallSetup setup_;
  std::mt19937 rng_{11};

 public:
  core::Problem problem;
  core::DecodeCall call;
  std::vector<int32_t> kv_len, table, q_offsets;
  std::vector<uint16_t> q, q_pe, cache, kpe;
  std::vector<uint8_t> out;
  std::vector<float> lse, sinks;
  std::unique_ptr<core::DecodePlan> plan;
  std::unique_ptr<Buffer> schedule, workspace;

 private:
  [[nodiscard]] uint16_t code(float x) const {
    return reference::encode_float(setup_.format == FLASHMLA_KV_FP16_576 ? reference::kFp16 : reference::kBf16, x);
  }
  [[nodiscard]] double tolerance() const {
    double const storage = setup_.format == FLASHMLA_KV_FP16_576 ? 4e-4 : 2.8e-3;
    return problem.out_dtype == FLASHMLA_BF16 ? 2.8e-3 : storage;
  }
  static std::string where(reference::Row row) {
    return "request " + std::to_string(row.request) + " q token " + std::to_string(row.q_idx) + " head " + std::to_string(row.head);
  }

  void make_queries() {
    std::normal_distribution<float> draw(0, 3.0f);
    size_t const width = setup_.pair_q ? 520 : 576 + 8;  // padded, and never a multiple of the vector length
    q.assign(num_rows() * width, 0x7fff);
    q_pe.assign(setup_.pair_q ? num_rows() * 64 : 0, 0x7fff);
    for (size_t row = 0; row < num_rows(); ++row) {
      for (size_t d = 0; d < (setup_.pair_q ? 512u : 576u); ++d) q[row * width + d] = code(draw(rng_));
      for (size_t d = 0; setup_.pair_q && d < 64; ++d) q_pe[row * 64 + d] = code(draw(rng_));
    }
    int64_t const w = static_cast<int64_t>(width), heads = setup_.h_q, tokens = setup_.q_tokens;
    call.q_nope = q.data();
    call.q_nope_stride = {tokens * heads * w, heads * w, w};
    call.q_fused = !setup_.pair_q;
    call.q_pe = setup_.pair_q ? q_pe.data() : q.data() + 512;
    call.q_pe_stride = setup_.pair_q ? core::RowStrides{tokens * heads * 64, heads * 64, 64} : call.q_nope_stride;
  }

  void make_cache() {
    int32_t const page = setup_.page_tokens;
    int32_t const longest = std::max(1, *std::max_element(kv_len.begin(), kv_len.end()));
    int64_t const pages_each = (longest + page - 1) / page, columns = pages_each + 2, num_pages = pages_each * batch() + 1;
    int64_t const width = (setup_.pair_cache ? 512 : 576) * setup_.h_kv, rope_width = 64 * setup_.h_kv,
                  padding = setup_.pair_cache ? 0 : 8;  // after each page
    cache.assign(static_cast<size_t>(num_pages * (page * width + padding)), 0x7fff);
    kpe.assign(setup_.pair_cache ? static_cast<size_t>(num_pages * page * rope_width) : 0, 0x7fff);
    call.ckv = cache.data();
    call.ckv_page_stride = page * width + padding;
    call.ckv_token_stride = width;
    call.ckv_head_stride = width / setup_.h_kv;
    call.kpe = setup_.pair_cache ? kpe.data() : cache.data() + 512;
    call.cache_fused = !setup_.pair_cache;
    call.kpe_page_stride = setup_.pair_cache ? page * rope_width : call.ckv_page_stride;
    call.kpe_token_stride = setup_.pair_cache ? rope_width : call.ckv_token_stride;
    call.kpe_head_stride = setup_.pair_cache ? 64 : call.ckv_head_stride;
    call.num_pages = num_pages;

    std::vector<int32_t> ids(static_cast<size_t>(num_pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), rng_);
    table.assign(static_cast<size_t>(columns) * kv_len.size(), 2147480000);
    call.page_table = table.data();
    call.page_table_stride = columns;
    call.table_pages = columns;
    size_t used = 0;
    std::normal_distribution<float> draw(0, 0.4f);
    for (int64_t r = 0; r < batch(); ++r) {
      for (int64_t token = 0; token < kv_len[static_cast<size_t>(r)]; ++token) {
        int32_t& id = table[static_cast<size_t>(r * columns + token / page)];
        if (token % page == 0) id = ids[used++];
        for (int32_t head = 0; head < setup_.h_kv; ++head) {
          int64_t const c = id * call.ckv_page_stride + token % page * call.ckv_token_stride + head * call.ckv_head_stride;
          int64_t const k = id * call.kpe_page_stride + token % page * call.kpe_token_stride + head * call.kpe_head_stride;
          uint16_t* const rope = setup_.pair_cache ? kpe.data() : cache.data() + 512;
          for (int64_t d = 0; d < 512; ++d) cache[static_cast<size_t>(c + d)] = code(draw(rng_));
          for (int64_t d = 0; d < 64; ++d) rope[k + d] = code(draw(rng_));
        }
      }
    }
  }
};

}  // namespace flashmla::cpu::test
