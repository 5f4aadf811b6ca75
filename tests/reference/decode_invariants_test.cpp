// What must not change a result, and how results of different calls hang together.
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "reference/merge.hpp"
#include "reference/tiny_call.hpp"

namespace flashmla::reference::test {
namespace {

void expect_equal(RowResult const& a, RowResult const& b) {
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(a.lse, b.lse);
}

TEST(DecodeInvariants, WherePagesLieDoesNotMatter) {
  TinyCall tiny({11, 7});
  TinyCall moved = tiny;
  std::reverse(moved.page_table.begin(), moved.page_table.end());
  for (int32_t b = 0; b < 2; ++b)
    for (int32_t t = 0; t < tiny.kv_len[static_cast<size_t>(b)]; ++t)
      std::copy_n(tiny.cache.begin() + static_cast<ptrdiff_t>(tiny.token_at(b, t)), 576,
                  moved.cache.begin() + static_cast<ptrdiff_t>(moved.token_at(b, t)));
  for (int32_t b = 0; b < 2; ++b) expect_equal(tiny.row({b, 0, 1}), moved.row({b, 0, 1}));
}

TEST(DecodeInvariants, PageSizeDoesNotMatter) {
  TinyCall const small({11}, 2, 1, 1);
  TinyCall large({11}, 2, 1, 16);
  std::copy(small.cache.begin(), small.cache.end(), large.cache.begin());
  large.q = small.q;
  expect_equal(small.row(), large.row());
}

TEST(DecodeInvariants, PoisonPastTheLengthIsNotRead) {
  TinyCall tiny({6, 3});
  RowResult const first = tiny.row({0, 0, 0}), second = tiny.row({1, 0, 1});
  for (int32_t b = 0; b < 2; ++b)
    for (int32_t t = tiny.kv_len[static_cast<size_t>(b)]; t < 8; ++t)
      std::fill_n(tiny.cache.begin() + static_cast<ptrdiff_t>(tiny.token_at(b, t)), 576, uint16_t{0xffff});
  tiny.page_table[3] = 2147480000;
  expect_equal(tiny.row({0, 0, 0}), first);
  expect_equal(tiny.row({1, 0, 1}), second);
}

TEST(DecodeInvariants, CausalRowsAreRowsOfShorterCalls) {
  TinyCall tiny({9}, 2, 4);
  tiny.problem.causal = true;
  for (int32_t q_idx = 0; q_idx < 4; ++q_idx) {
    TinyCall shorter = tiny;
    shorter.problem.causal = false;
    shorter.kv_len = {9 - 4 + q_idx + 1};
    expect_equal(tiny.row({0, q_idx, 1}), shorter.row({0, q_idx, 1}));
  }
}

TEST(DecodeInvariants, VisibleLenReplacesTheCausalRule) {
  TinyCall tiny({9, 4}, 1, 2);
  tiny.problem.causal = true;
  tiny.visible_len = {2, 9, 0, 3};
  for (int32_t b = 0; b < 2; ++b)
    for (int32_t q_idx = 0; q_idx < 2; ++q_idx) {
      TinyCall shorter = tiny;
      shorter.visible_len.clear();
      shorter.problem.causal = false;
      shorter.kv_len[static_cast<size_t>(b)] = tiny.visible_len[static_cast<size_t>(b * 2 + q_idx)];
      expect_equal(tiny.row({b, q_idx, 0}), shorter.row({b, q_idx, 0}));
    }
}

TEST(DecodeInvariants, TokensOfABadPageAreNotThere) {
  TinyCall bad({10});
  TinyCall without({6});
  std::copy_n(bad.cache.begin(), 4 * 576, without.cache.begin());
  std::copy_n(bad.cache.begin() + 8 * 576, 2 * 576, without.cache.begin() + 4 * 576);
  for (int32_t const id : {-1, 3, INT_MAX, INT_MIN}) {
    bad.page_table[1] = id;
    expect_equal(bad.row(), without.row());
  }
  bad.page_table = {-1, -1, -1};
  EXPECT_EQ(bad.row().lse, kInfinity);
}

TEST(DecodeInvariants, LengthsAreClampedToTheDeclaredMaximum) {
  TinyCall tiny({8});
  TinyCall shorter = tiny;
  shorter.kv_len = {5};
  tiny.problem.max_kv_len = 5;
  expect_equal(tiny.row(), shorter.row());
}

TEST(DecodeInvariants, LengthsAreClampedToTheTable) {
  TinyCall tiny({8});
  RowResult const whole = tiny.row();
  for (int32_t const len : {9, 1000, INT_MAX}) {
    tiny.kv_len = {len};
    EXPECT_EQ(clamped_kv_len(tiny.problem, tiny.call(), 0), 8);
    expect_equal(tiny.row(), whole);
  }
  for (int32_t const len : {-1, INT_MIN}) {
    tiny.kv_len = {len};
    EXPECT_EQ(tiny.row().lse, kInfinity);
  }
}

TEST(DecodeInvariants, PairsAreTheirFusedTensor) {
  TinyCall const tiny({7}, 2, 1, 4, 2);
  core::DecodeCall call = tiny.call();
  std::vector<uint16_t> nope, pe, ckv, kpe;
  for (size_t i = 0; i < tiny.q.size(); ++i) (i % 576 < 512 ? nope : pe).push_back(tiny.q[i]);
  for (size_t i = 0; i < tiny.cache.size(); ++i) (i % 576 < 512 ? ckv : kpe).push_back(tiny.cache[i]);
  call.q_fused = call.cache_fused = false;
  call.q_nope = nope.data(), call.q_pe = pe.data(), call.ckv = ckv.data(), call.kpe = kpe.data();
  call.q_nope_stride = {2 * 512, 2 * 512, 512};
  call.q_pe_stride = {2 * 64, 2 * 64, 64};
  call.ckv_page_stride = 4 * 2 * 512, call.ckv_token_stride = 2 * 512, call.ckv_head_stride = 512;
  call.kpe_page_stride = 4 * 2 * 64, call.kpe_token_stride = 2 * 64, call.kpe_head_stride = 64;
  expect_equal(decode_row(tiny.problem, call, {0, 0, 1}), tiny.row({0, 0, 1}));
}

TEST(DecodeInvariants, BothCacheTypesHoldTheSameNumbers) {
  TinyCall fp16({7}, 1);
  TinyCall bf16 = fp16;
  bf16.problem.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  bf16.problem.q_dtype = FLASHMLA_BF16;
  for (auto const tensor : {&TinyCall::q, &TinyCall::cache})
    for (size_t i = 0; i < (fp16.*tensor).size(); ++i) {
      double const value = std::round(decode_float(kFp16, (fp16.*tensor)[i]) * 64) / 64;  // exact in either type
      (fp16.*tensor)[i] = encode_float(kFp16, value);
      (bf16.*tensor)[i] = encode_float(kBf16, value);
    }
  expect_equal(fp16.row(), bf16.row());
}

TEST(DecodeInvariants, MergedHalvesAreTheWhole) {
  TinyCall whole({11}, 2);
  RowResult halves[2];
  whole.visible_len = {4};
  halves[0] = whole.row();
  whole.visible_len.clear();
  TinyCall rest = whole;
  rest.page_table.erase(rest.page_table.begin());
  rest.page_table.push_back(-1);
  rest.kv_len = {7};
  halves[1] = rest.row();

  std::vector<float> partial_out, partial_lse, out(512), lse(1);
  for (RowResult const& half : halves) {
    partial_out.insert(partial_out.end(), half.out.begin(), half.out.end());
    partial_lse.push_back(static_cast<float>(half.lse));
  }
  core::MergeCall merge_call;
  merge_call.num_parts = 2, merge_call.tokens = 1, merge_call.heads = 1, merge_call.v_dim = 512;
  merge_call.out_dtype = FLASHMLA_FP32;
  merge_call.partial_out = partial_out.data(), merge_call.partial_lse = partial_lse.data();
  merge_call.partial_out_stride[0] = 512, merge_call.partial_lse_stride[0] = 1;
  merge_call.out = out.data(), merge_call.lse = lse.data();
  merge(merge_call);

  RowResult const expected = whole.row();
  for (size_t d = 0; d < 512; ++d) EXPECT_NEAR(out[d], expected.out[d], 1e-6);
  EXPECT_NEAR(lse[0], expected.lse, 1e-6);
}

}  // namespace
}  // namespace flashmla::reference::test
