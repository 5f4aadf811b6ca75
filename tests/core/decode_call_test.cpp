#include <gtest/gtest.h>

#include <flashmla/problem.hpp>
#include <functional>
#include <vector>

#include "core/calls.hpp"
#include "core/expect_error.hpp"
#include "core/test_views.hpp"

namespace flashmla::core {
namespace {

constexpr int64_t kBatch = 3, kTokens = 2, kHeads = 16, kPages = 40;
constexpr flashmla_status kInvalid = FLASHMLA_INVALID_ARGUMENT, kUnsupported = FLASHMLA_UNSUPPORTED;

Problem make_problem(std::function<void(flashmla::Problem&)> const& change = [](flashmla::Problem&) {}) {
  flashmla::Problem problem = flashmla::Problem::decode(kHeads, kKvBf16_576, 8);
  problem.max_q_tokens = 4;
  change(problem);
  return validate(problem);
}

DecodeArgs good_args() {
  DecodeArgs args;
  args.q = View::contiguous(fake_memory(0), kBf16, kCpu, {kBatch, kTokens, kHeads, 576});
  args.cache = View::contiguous(fake_memory(1), kBf16, kCpu, {kPages, 64, 1, 576});
  args.page_table = View::strided(fake_memory(2), kInt32, kCpu, {kBatch, 10}, {16, 1});
  args.lengths = Lengths(View::contiguous(fake_memory(3), kInt32, kCpu, {kBatch}), kTokens);
  args.out = View::contiguous(fake_memory(4), kBf16, kCpu, {kBatch, kTokens, kHeads, 512});
  args.lse = View::contiguous(fake_memory(5), kFp32, kCpu, {kBatch, kHeads, kTokens});
  return args;
}

void use_q_pair(DecodeArgs& args) {
  args.q = View();
  args.q_nope = View::contiguous(fake_memory(6), kBf16, kCpu, {kBatch, kTokens, kHeads, 512});
  args.q_pe = View::contiguous(fake_memory(7), kBf16, kCpu, {kBatch, kTokens, kHeads, 64});
}

void use_cache_pair(DecodeArgs& args) {
  args.cache = View();
  args.ckv = View::contiguous(fake_memory(8), kBf16, kCpu, {kPages, 64, 512});
  args.kpe = View::contiguous(fake_memory(9), kBf16, kCpu, {kPages, 64, 64});
}

TEST(DecodeCall, AFusedCallIsReducedToPairs) {
  DecodeArgs const args = good_args();
  DecodeCall const call = validate(make_problem(), kCpu, args);
  EXPECT_EQ(call.batch, kBatch);
  EXPECT_EQ(call.q_tokens, kTokens);
  EXPECT_TRUE(call.q_fused && call.cache_fused);
  EXPECT_EQ(call.q_nope, args.q.data);
  EXPECT_EQ(call.q_pe, static_cast<char*>(args.q.data) + 512 * 2);
  EXPECT_EQ(call.q_pe_stride.batch, kTokens * kHeads * 576);
  EXPECT_EQ(call.q_nope_stride.token, kHeads * 576);
  EXPECT_EQ(call.q_nope_stride.head, 576);
  EXPECT_EQ(call.kpe, static_cast<char*>(args.cache.data) + 512 * 2);
  EXPECT_EQ(call.ckv_page_stride, 64 * 576);
  EXPECT_EQ(call.kpe_token_stride, 576);
  EXPECT_EQ(call.num_pages, kPages);
  EXPECT_EQ(call.page_table_stride, 16);
  EXPECT_EQ(call.table_pages, 10);
  EXPECT_EQ(call.out_stride.head, 512);
  EXPECT_EQ(call.lse_stride.batch, kHeads * kTokens);
  EXPECT_EQ(call.lse_stride.head, kTokens);
  EXPECT_EQ(call.lse_stride.token, 1);
  EXPECT_EQ(call.sink, nullptr);
  EXPECT_EQ(call.visible_len, nullptr);
}

TEST(DecodeCall, PairsAreKeptAndRecognisedWhenTheyAreSlicesOfAFusedTensor) {
  DecodeArgs args = good_args();
  use_q_pair(args);
  use_cache_pair(args);
  DecodeCall call = validate(make_problem(), kCpu, args);
  EXPECT_FALSE(call.q_fused || call.cache_fused);
  EXPECT_EQ(call.q_pe, fake_memory(7));
  EXPECT_EQ(call.q_pe_stride.head, 64);
  EXPECT_EQ(call.kpe_page_stride, 64 * 64);
  EXPECT_EQ(call.ckv_token_stride, 512);

  uint16_t* const fused = static_cast<uint16_t*>(fake_memory(6));
  std::initializer_list<int64_t> const stride = {kTokens * kHeads * 576, kHeads * 576, 576, 1};
  args.q_nope = View::strided(fused, kBf16, kCpu, {kBatch, kTokens, kHeads, 512}, stride);
  args.q_pe = View::strided(fused + 512, kBf16, kCpu, {kBatch, kTokens, kHeads, 64}, stride);
  args.ckv = View::strided(fake_memory(1), kBf16, kCpu, {kPages, 64, 512}, {64 * 576, 576, 1});
  args.kpe = View::strided(static_cast<uint16_t*>(fake_memory(1)) + 512, kBf16, kCpu, {kPages, 64, 64}, {64 * 576, 576, 1});
  call = validate(make_problem(), kCpu, args);
  EXPECT_TRUE(call.q_fused && call.cache_fused);
}

TEST(DecodeCall, LseOfTokensAndHeads) {
  DecodeArgs args = good_args();
  args.lse = View::strided(fake_memory(5), kFp32, kCpu, {kBatch * kTokens, kHeads}, {100, 2});
  DecodeCall const call = validate(make_problem([](auto& p) { p.lse_layout = FLASHMLA_LSE_TOKENS_HEADS; }), kCpu, args);
  EXPECT_EQ(call.lse_stride.batch, kTokens * 100);
  EXPECT_EQ(call.lse_stride.token, 100);
  EXPECT_EQ(call.lse_stride.head, 2);
}

/// The same call with 0, 4 and 1 query tokens and 2 that are nobody's.
DecodeArgs ragged_args() {
  constexpr int64_t kTotal = 7;
  DecodeArgs args = good_args();
  args.q = View::contiguous(fake_memory(0), kBf16, kCpu, {kTotal, kHeads, 576});
  args.lengths.q_tokens = 0;
  args.lengths.q_offsets = View::contiguous(fake_memory(12), kInt32, kCpu, {kBatch + 1});
  args.out = View::strided(fake_memory(4), kBf16, kCpu, {kTotal, kHeads, 512}, {kHeads * 520, 520, 1});
  args.lse = View::contiguous(fake_memory(5), kFp32, kCpu, {kHeads, kTotal});
  return args;
}

TEST(DecodeCall, RaggedRowsHaveNoBatchDimension) {
  DecodeCall const call = validate(make_problem(), kCpu, ragged_args());
  EXPECT_EQ(call.q_offsets, fake_memory(12));
  EXPECT_EQ(call.total_q, 7);
  EXPECT_EQ(call.q_tokens, 4);  // max_q_tokens
  EXPECT_EQ(call.q_nope_stride.batch, 0);
  EXPECT_EQ(call.q_nope_stride.token, kHeads * 576);
  EXPECT_EQ(call.q_pe_stride.head, 576);
  EXPECT_EQ(call.out_stride.token, kHeads * 520);
  EXPECT_EQ(call.lse_stride.batch, 0);
  EXPECT_EQ(call.lse_stride.head, 7);
  EXPECT_EQ(call.lse_stride.token, 1);
  EXPECT_EQ(validate(make_problem(), kCpu, good_args()).total_q, kBatch * kTokens);
}

TEST(DecodeCall, RaggedPairsLseOfTokensAndVisibleLengths) {
  DecodeArgs args = ragged_args();
  args.q = View();
  args.q_nope = View::contiguous(fake_memory(6), kBf16, kCpu, {7, kHeads, 512});
  args.q_pe = View::contiguous(fake_memory(7), kBf16, kCpu, {7, kHeads, 64});
  args.lse = View::contiguous(fake_memory(5), kFp32, kCpu, {7, kHeads});
  args.visible_len = View::contiguous(fake_memory(11), kInt32, kCpu, {7});
  args.lengths.q_tokens = 3;
  DecodeCall const call = validate(make_problem([](auto& p) { p.lse_layout = FLASHMLA_LSE_TOKENS_HEADS; }), kCpu, args);
  EXPECT_EQ(call.q_tokens, 3);
  EXPECT_EQ(call.total_q, 7);
  EXPECT_EQ(call.q_pe_stride.token, kHeads * 64);
  EXPECT_EQ(call.lse_stride.batch, 0);
  EXPECT_EQ(call.lse_stride.token, kHeads);
  EXPECT_EQ(call.lse_stride.head, 1);
}

TEST(DecodeCall, NoQueryTokensAtAllNeedNoMemory) {
  DecodeArgs args = ragged_args();
  args.q = View::contiguous(nullptr, kBf16, kCpu, {0, kHeads, 576});
  args.out = View::contiguous(nullptr, kBf16, kCpu, {0, kHeads, 512});
  args.lse = View::contiguous(nullptr, kFp32, kCpu, {kHeads, 0});
  EXPECT_EQ(validate(make_problem(), kCpu, args).total_q, 0);
}

/// Nobody steps through the rows of an empty batch, so their stride may be anything.
TEST(DecodeCall, LseOfNoTokensMayHaveAnyStride) {
  DecodeArgs args = good_args();
  args.lengths = Lengths(View::contiguous(nullptr, kInt32, kCpu, {0}), kTokens);
  args.q = View::contiguous(nullptr, kBf16, kCpu, {0, kTokens, kHeads, 576});
  args.page_table = View::contiguous(nullptr, kInt32, kCpu, {0, 10});
  args.out = View::contiguous(nullptr, kBf16, kCpu, {0, kTokens, kHeads, 512});
  args.lse = View::strided(nullptr, kFp32, kCpu, {0, kHeads}, {INT64_MAX, INT64_MAX});
  DecodeCall const call = validate(make_problem([](auto& p) { p.lse_layout = FLASHMLA_LSE_TOKENS_HEADS; }), kCpu, args);
  EXPECT_EQ(call.batch, 0);
  EXPECT_EQ(call.lse_stride.batch, 0);
}

TEST(DecodeCall, OptionalViewsArrive) {
  DecodeArgs args = good_args();
  args.lse = View();
  args.sink = View::contiguous(fake_memory(10), kFp32, kCpu, {kHeads});
  args.visible_len = View::contiguous(fake_memory(11), kInt32, kCpu, {kBatch * kTokens});
  DecodeCall const call = validate(make_problem(), kCpu, args);
  EXPECT_EQ(call.lse, nullptr);
  EXPECT_EQ(call.sink, fake_memory(10));
  EXPECT_EQ(call.visible_len, fake_memory(11));
}

TEST(DecodeCall, OutOfBoundsStridesThatAreNeverUsedDoNotMatter) {
  DecodeArgs args = good_args();
  args.lengths = Lengths(View::contiguous(fake_memory(3), kInt32, kCpu, {1}), 1);
  args.q = View::strided(fake_memory(0), kBf16, kCpu, {1, 1, kHeads, 576}, {-1, INT64_MAX, 576, 1});
  args.page_table = View::strided(fake_memory(2), kInt32, kCpu, {1, 10}, {0, 1});
  args.out = View::strided(fake_memory(4), kBf16, kCpu, {1, 1, kHeads, 512}, {0, 0, 512, 1});
  args.lse = View();
  EXPECT_EQ(validate(make_problem(), kCpu, args).batch, 1);
}

TEST(DecodeCall, AnEmptyBatchNeedsNoMemory) {
  DecodeArgs args = good_args();
  args.q = View::contiguous(nullptr, kBf16, kCpu, {0, kTokens, kHeads, 576});
  args.page_table = View::contiguous(nullptr, kInt32, kCpu, {0, 10});
  args.lengths = Lengths(View::contiguous(nullptr, kInt32, kCpu, {0}), kTokens);
  args.out = View::contiguous(nullptr, kBf16, kCpu, {0, kTokens, kHeads, 512});
  args.lse = View::contiguous(nullptr, kFp32, kCpu, {0, kHeads, kTokens});
  DecodeCall const call = validate(make_problem(), kCpu, args);
  EXPECT_EQ(call.batch, 0);
  EXPECT_EQ(call.q_pe, nullptr);
}

TEST(DecodeCall, ColumnsOfOneMatrixAreNoOverlap) {
  // q and out side by side in rows of 576 + 512 elements: their extents cross, their elements do not.
  DecodeArgs args = good_args();
  uint16_t* const base = static_cast<uint16_t*>(fake_memory(0));
  int64_t const row = 576 + 512;
  std::initializer_list<int64_t> const stride = {kTokens * kHeads * row, kHeads * row, row, 1};
  args.q = View::strided(base, kBf16, kCpu, {kBatch, kTokens, kHeads, 576}, stride);
  args.out = View::strided(base + 576, kBf16, kCpu, {kBatch, kTokens, kHeads, 512}, stride);
  EXPECT_EQ(validate(make_problem(), kCpu, args).batch, kBatch);
  args.out = View::strided(base + 575, kBf16, kCpu, {kBatch, kTokens, kHeads, 512}, stride);
  expect_error({kInvalid, "decode", "out", "memory shared with q"}, [&] { validate(make_problem(), kCpu, args); });
  args.out = View::strided(base + 577, kBf16, kCpu, {kBatch, kTokens, kHeads, 512}, stride);
  expect_error({kInvalid, "decode", "out", "memory shared with q"}, [&] { validate(make_problem(), kCpu, args); });
}

struct BadArgs {
  flashmla_status status;
  char const* argument;
  char const* fragment;
  std::function<void(DecodeArgs&)> spoil;
};

void expect_all(std::vector<BadArgs> const& cases) {
  Problem const problem = make_problem();
  for (BadArgs const& bad : cases) {
    DecodeArgs args = good_args();
    bad.spoil(args);
    SCOPED_TRACE(std::string(bad.argument) + ": " + bad.fragment);
    expect_error({bad.status, "decode", bad.argument, bad.fragment}, [&] { validate(problem, kCpu, args); });
  }
}

using A = DecodeArgs;

TEST(DecodeCall, BadStructs) {
  expect_all({
      {kInvalid, "struct_size", "got 7", [](A& a) { a.struct_size = 7; }},
      {kInvalid, "flags", "unknown flag 1", [](A& a) { a.flags = 1; }},
      {kInvalid, "lengths.struct_size", "got 0", [](A& a) { a.lengths.struct_size = 0; }},
      {kInvalid, "lengths.flags", "unknown flag 2", [](A& a) { a.lengths.flags = 2; }},
      {kInvalid, "lengths.reserved", "got 3", [](A& a) { a.lengths.reserved = 3; }},
  });
}

TEST(DecodeCall, WhatIsNotBuiltIsNamed) {
  View const some = View::contiguous(fake_memory(12), kInt32, kCpu, {kBatch, kTokens, 8});
  expect_all({
      {kUnsupported, "indices", "dense", [&](A& a) { a.indices = some; }},
      {kUnsupported, "extra_cache", "flashmla_merge", [&](A& a) { a.extra_cache = some; }},
      {kUnsupported, "extra_page_table", "one cache", [&](A& a) { a.extra_page_table = some; }},
      {kUnsupported, "extra_indices", "one cache", [&](A& a) { a.extra_indices = some; }},
      {kUnsupported, "q_scale", "no scales", [&](A& a) { a.q_scale = some; }},
      {kUnsupported, "kv_scale", "no scales", [&](A& a) { a.kv_scale = some; }},
      {kUnsupported, "lengths.topk_len", "dense", [&](A& a) { a.lengths.topk_len = some; }},
      {kUnsupported, "lengths.extra_topk_len", "dense", [&](A& a) { a.lengths.extra_topk_len = some; }},
  });
}

TEST(DecodeCall, BadLengths) {
  expect_all({
      {kInvalid, "lengths.kv_len", "no view", [](A& a) { a.lengths.kv_len = View(); }},
      {kInvalid, "lengths.kv_len", "rank 2", [](A& a) { a.lengths.kv_len.rank = 2; }},
      {kInvalid, "lengths.kv_len", "dtype INT64, expected INT32", [](A& a) { a.lengths.kv_len.dtype = kInt64; }},
      {kInvalid, "lengths.kv_len", "stride 0 = 2, expected 1", [](A& a) { a.lengths.kv_len.stride[0] = 2; }},
      {kInvalid, "lengths.kv_len", "null data", [](A& a) { a.lengths.kv_len.data = nullptr; }},
      {kInvalid, "lengths.kv_len", "a batch of 9, expected at most max_batch 8", [](A& a) { a.lengths.kv_len.size[0] = 9; }},
      {kInvalid, "lengths.kv_len", "dim 0 = -1", [](A& a) { a.lengths.kv_len.size[0] = -1; }},
      {kInvalid, "lengths.kv_len", "2 bytes past a multiple of 4",
       [](A& a) { a.lengths.kv_len.data = static_cast<char*>(a.lengths.kv_len.data) + 2; }},
      {kInvalid, "lengths.q_tokens", "got -1", [](A& a) { a.lengths.q_tokens = -1; }},
      {kInvalid, "lengths.q_tokens", "got 5, expected at most max_q_tokens 4", [](A& a) { a.lengths.q_tokens = 5; }},
      {kInvalid, "q", "dim 1 = 2, expected 1 (lengths.q_tokens)", [](A& a) { a.lengths.q_tokens = 0; }},
      {kInvalid, "q", "dim 0 = 3, expected 4 (batch, from lengths.kv_len)", [](A& a) { a.lengths.kv_len.size[0] = 4; }},
  });
}

TEST(DecodeCall, BadQueries) {
  expect_all({
      {kInvalid, "q", "no view, expected either q or the pair q_nope and q_pe", [](A& a) { a.q = View(); }},
      {kInvalid, "q", "rank 3, expected rank 4", [](A& a) { a.q.rank = 3; }},
      {kInvalid, "q", "rank 77", [](A& a) { a.q.rank = 77; }},
      {kInvalid, "q", "rank -1", [](A& a) { a.q.rank = -1; }},
      {kInvalid, "q", "dtype FP16, expected BF16", [](A& a) { a.q.dtype = kFp16; }},
      {kInvalid, "q", "dtype -9, expected BF16", [](A& a) { a.q.dtype = -9; }},
      {kInvalid, "q", "dim 2 = 8, expected 16 (h_q of the problem)", [](A& a) { a.q.size[2] = 8; }},
      {kInvalid, "q", "dim 3 = 512, expected 576 (latent + rope)", [](A& a) { a.q.size[3] = 512; }},
      {kInvalid, "q", "dim 0 = -3", [](A& a) { a.q.size[0] = -3; }},
      {kInvalid, "q", "stride 3 = 2, expected 1", [](A& a) { a.q.stride[3] = 2; }},
      {kInvalid, "q", "stride 0 = -576", [](A& a) { a.q.stride[0] = -576; }},
      {kInvalid, "q", "past the last address", [](A& a) { a.q.stride[0] = INT64_MAX / 2; }},
      {kInvalid, "q", "past the last address", [](A& a) { a.q.stride[0] = INT64_MAX / 4 - 64; }},
      {kInvalid, "q", "on cuda:0, expected cpu", [](A& a) { a.q.device = cuda_device(0); }},
      {kInvalid, "q", "null data", [](A& a) { a.q.data = nullptr; }},
      {kInvalid, "q", "1 bytes past a multiple of 2", [](A& a) { a.q.data = static_cast<char*>(a.q.data) + 1; }},
      {kInvalid, "q", "both it and q_nope",
       [](A& a) {
         use_q_pair(a);
         a.q = good_args().q;
       }},
      {kInvalid, "q_pe", "no view",
       [](A& a) {
         use_q_pair(a);
         a.q_pe = View();
       }},
      {kInvalid, "q_nope", "no view",
       [](A& a) {
         use_q_pair(a);
         a.q_nope = View();
       }},
      {kInvalid, "q_pe", "dim 3 = 32, expected 64 (rope)",
       [](A& a) {
         use_q_pair(a);
         a.q_pe.size[3] = 32;
       }},
      {kInvalid, "q_nope", "dim 3 = 576, expected 512 (latent)",
       [](A& a) {
         use_q_pair(a);
         a.q_nope.size[3] = 576;
       }},
  });
}

TEST(DecodeCall, BadCaches) {
  expect_all({
      {kInvalid, "cache", "no view, expected either cache or the pair ckv and kpe", [](A& a) { a.cache = View(); }},
      {kInvalid, "cache", "dim 1 = 32, expected 64 (page_tokens of the problem)", [](A& a) { a.cache.size[1] = 32; }},
      {kInvalid, "cache", "dim 2 = 2, expected 1 (h_kv of the problem)", [](A& a) { a.cache.size[2] = 2; }},
      {kInvalid, "cache", "dim 3 = 656", [](A& a) { a.cache.size[3] = 656; }},
      {kInvalid, "cache", "dtype UINT8, expected BF16", [](A& a) { a.cache.dtype = kUint8; }},
      {kInvalid, "cache", "rank 2", [](A& a) { a.cache.rank = 2; }},
      {kInvalid, "cache", "stride 3 = 0", [](A& a) { a.cache.stride[3] = 0; }},
      {kInvalid, "cache", "stride 0 = -1", [](A& a) { a.cache.stride[0] = -1; }},
      {kInvalid, "cache", "null data", [](A& a) { a.cache.data = nullptr; }},
      {kInvalid, "cache", "both it and kpe", [](A& a) { a.kpe = View::contiguous(fake_memory(9), kBf16, kCpu, {kPages, 64, 64}); }},
      {kInvalid, "kpe", "no view",
       [](A& a) {
         use_cache_pair(a);
         a.kpe = View();
       }},
      {kInvalid, "ckv", "no view",
       [](A& a) {
         use_cache_pair(a);
         a.ckv = View();
       }},
      {kInvalid, "kpe", "dim 0 = 39, expected 40 (pages of ckv)",
       [](A& a) {
         use_cache_pair(a);
         a.kpe.size[0] = 39;
       }},
  });
}

TEST(DecodeCall, BadTablesAndSmallViews) {
  expect_all({
      {kInvalid, "page_table", "no view", [](A& a) { a.page_table = View(); }},
      {kInvalid, "page_table", "dim 0 = 2, expected 3", [](A& a) { a.page_table.size[0] = 2; }},
      {kInvalid, "page_table", "dtype INT64", [](A& a) { a.page_table.dtype = kInt64; }},
      {kInvalid, "page_table", "stride 1 = 2", [](A& a) { a.page_table.stride[1] = 2; }},
      {kInvalid, "page_table", "on cuda:3", [](A& a) { a.page_table.device = cuda_device(3); }},
      {kInvalid, "sink", "dim 0 = 15, expected 16", [](A& a) { a.sink = View::contiguous(fake_memory(10), kFp32, kCpu, {kHeads - 1}); }},
      {kInvalid, "sink", "dtype BF16, expected FP32", [](A& a) { a.sink = View::contiguous(fake_memory(10), kBf16, kCpu, {kHeads}); }},
      {kInvalid, "sink", "contiguous", [](A& a) { a.sink = View::strided(fake_memory(10), kFp32, kCpu, {kHeads}, {2}); }},
      {kInvalid, "visible_len", "dim 0 = 3, expected 6",
       [](A& a) { a.visible_len = View::contiguous(fake_memory(11), kInt32, kCpu, {kBatch}); }},
  });
}

TEST(DecodeCall, BadOutputs) {
  expect_all({
      {kInvalid, "out", "no view", [](A& a) { a.out = View(); }},
      {kInvalid, "out", "dim 3 = 576, expected 512 (d_v of the cache format)", [](A& a) { a.out.size[3] = 576; }},
      {kInvalid, "out", "dim 1 = 1, expected 2", [](A& a) { a.out.size[1] = 1; }},
      {kInvalid, "out", "dtype FP32, expected BF16", [](A& a) { a.out.dtype = kFp32; }},
      {kInvalid, "out", "stride 2 = 511, expected at least 512", [](A& a) { a.out.stride[2] = 511; }},
      {kInvalid, "out", "stride 0 = 0", [](A& a) { a.out.stride[0] = 0; }},
      {kInvalid, "out", "memory shared with q", [](A& a) { a.out.data = a.q.data; }},
      {kInvalid, "out", "memory shared with cache", [](A& a) { a.out.data = static_cast<char*>(a.cache.data) + 4096; }},
      {kInvalid, "out", "memory shared with page_table", [](A& a) { a.out.data = static_cast<char*>(a.page_table.data) - 1024; }},
      {kInvalid, "out", "memory shared with lengths.kv_len", [](A& a) { a.out.data = a.lengths.kv_len.data; }},
      {kInvalid, "lse", "memory shared with out", [](A& a) { a.lse.data = a.out.data; }},
      {kInvalid, "lse", "dtype BF16", [](A& a) { a.lse.dtype = kBf16; }},
      {kInvalid, "lse", "rank 2, expected rank 3", [](A& a) { a.lse.rank = 2; }},
      {kInvalid, "lse", "dim 1 = 2, expected 16",
       [](A& a) { a.lse = View::contiguous(fake_memory(5), kFp32, kCpu, {kBatch, kTokens, kHeads}); }},
      {kInvalid, "lse", "stride 2 = 1, expected at least 16", [](A& a) { a.lse.stride[1] = 1; }},
  });
}

TEST(DecodeCall, TheBuffersOfARunLieApartFromItsViews) {
  DecodeArgs const args = good_args();
  View const schedule = View::bytes(fake_memory(20), 4096, kCpu), workspace = View::bytes(fake_memory(21), 65536, kCpu);
  BufferBytes const bytes{4096, 65536};
  RunBuffers const buffers = validate_run_buffers(kCpu, args, schedule, workspace, bytes);
  EXPECT_EQ(buffers.schedule, fake_memory(20));
  EXPECT_EQ(buffers.workspace, fake_memory(21));
  auto const refuse = [&](char const* argument, char const* fragment, View const& s, View const& w) {
    expect_error({kInvalid, "decode", argument, fragment}, [&] { validate_run_buffers(kCpu, args, s, w, bytes); });
  };
  refuse("schedule", "got 4095 bytes, expected at least 4096", View::bytes(fake_memory(20), 4095, kCpu), workspace);
  refuse("workspace", "no view", schedule, View());
  refuse("workspace", "memory shared with schedule", schedule, View::bytes(fake_memory(20), 65536, kCpu));
  refuse("workspace", "memory shared with cache", schedule, View::bytes(fake_memory(1), 65536, kCpu));
  refuse("out", "memory shared with schedule", View::bytes(fake_memory(4), 4096, kCpu), workspace);
}

TEST(LengthsCall, UpdateChecksItsOwnNames) {
  Problem const problem = make_problem();
  Lengths lengths(View::contiguous(fake_memory(3), kInt32, kCpu, {kBatch}));
  LengthsCall const call = validate(problem, kCpu, lengths);
  EXPECT_EQ(call.batch, kBatch);
  EXPECT_EQ(call.q_tokens, 1);
  EXPECT_EQ(call.kv_len, fake_memory(3));
  lengths.q_tokens = 5;
  expect_error({kInvalid, "plan_update", "q_tokens", "got 5"}, [&] { validate(problem, kCpu, lengths); });
  lengths = Lengths();
  expect_error({kInvalid, "plan_update", "kv_len", "no view"}, [&] { validate(problem, kCpu, lengths); });
  lengths.struct_size = 12;
  expect_error({kInvalid, "plan_update", "struct_size", "got 12"}, [&] { validate(problem, kCpu, lengths); });
}

TEST(LengthsCall, TheScheduleLiesApartFromTheLengths) {
  Lengths const lengths(View::contiguous(fake_memory(3), kInt32, kCpu, {kBatch}));
  EXPECT_EQ(validate_update_buffer(kCpu, lengths, View::bytes(fake_memory(20), 4096, kCpu), 4096), fake_memory(20));
  expect_error({kInvalid, "plan_update", "schedule", "memory shared with kv_len"},
               [&] { validate_update_buffer(kCpu, lengths, View::bytes(fake_memory(3), 4096, kCpu), 4096); });
}

}  // namespace
}  // namespace flashmla::core
