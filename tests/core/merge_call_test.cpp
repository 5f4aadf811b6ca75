#include <gtest/gtest.h>

#include <flashmla/ops.hpp>
#include <functional>
#include <vector>

#include "core/calls.hpp"
#include "core/expect_error.hpp"
#include "core/test_views.hpp"

namespace flashmla::core {
namespace {

constexpr int64_t kParts = 4, kTokens = 3, kHeads = 5, kDim = 512;

MergeArgs good_args() {
  MergeArgs args;
  args.partial_out = View::contiguous(fake_memory(0), kFp32, kCpu, {kParts, kTokens, kHeads, kDim});
  args.partial_lse = View::strided(fake_memory(1), kFp32, kCpu, {kParts, kTokens, kHeads}, {1, 4, 40});
  args.out = View::contiguous(fake_memory(2), kBf16, kCpu, {kTokens, kHeads, kDim});
  args.lse = View::contiguous(fake_memory(3), kFp32, kCpu, {kTokens, kHeads});
  return args;
}

TEST(MergeCall, EverythingArrives) {
  MergeArgs args = good_args();
  args.lse_base = FLASHMLA_LSE_BASE_2;
  args.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  args.sink = View::contiguous(fake_memory(4), kFp32, kCpu, {kHeads});
  MergeCall const call = validate(args);
  EXPECT_EQ(call.num_parts, kParts);
  EXPECT_EQ(call.tokens, kTokens);
  EXPECT_EQ(call.heads, kHeads);
  EXPECT_EQ(call.v_dim, kDim);
  EXPECT_EQ(call.partial_dtype, FLASHMLA_FP32);
  EXPECT_EQ(call.out_dtype, FLASHMLA_BF16);
  EXPECT_EQ(call.lse_base, FLASHMLA_LSE_BASE_2);
  EXPECT_EQ(call.empty_row, FLASHMLA_EMPTY_LSE_MINUS_INF);
  EXPECT_EQ(call.partial_out_stride[0], kTokens * kHeads * kDim);
  EXPECT_EQ(call.partial_lse_stride[2], 40);
  EXPECT_EQ(call.out_stride[1], kDim);
  EXPECT_EQ(call.lse_stride[0], kHeads);
  EXPECT_EQ(call.sink, fake_memory(4));
  EXPECT_EQ(call.device.kind, FLASHMLA_CPU);
}

TEST(MergeCall, NoPartsIsLegal) {
  MergeArgs args = good_args();
  args.partial_out = View::contiguous(nullptr, kFp32, kCpu, {0, kTokens, kHeads, kDim});
  args.partial_lse = View::contiguous(nullptr, kFp32, kCpu, {0, kTokens, kHeads});
  EXPECT_EQ(validate(args).num_parts, 0);
}

struct BadArgs {
  char const* argument;
  char const* fragment;
  std::function<void(MergeArgs&)> spoil;
};

TEST(MergeCall, BadArguments) {
  using A = MergeArgs;
  std::vector<BadArgs> const cases = {
      {"struct_size", "got 1", [](A& a) { a.struct_size = 1; }},
      {"flags", "unknown flag 4", [](A& a) { a.flags = 4; }},
      {"lse_base", "got 3", [](A& a) { a.lse_base = 3; }},
      {"empty_row", "got -1", [](A& a) { a.empty_row = -1; }},
      {"out", "no view", [](A& a) { a.out = View(); }},
      {"out", "dtype INT32, expected BF16, FP16 or FP32", [](A& a) { a.out.dtype = kInt32; }},
      {"out", "rank 4, expected rank 3", [](A& a) { a.out.rank = 4; }},
      {"out", "device kind 9", [](A& a) { a.out.device.kind = 9; }},
      {"out", "stride 1 = 100, expected at least 512", [](A& a) { a.out.stride[1] = 100; }},
      {"out", "dim 2 = 0, expected at least 1", [](A& a) { a.out.size[2] = 0; }},
      {"out", "memory shared with partial_out", [](A& a) { a.out.data = a.partial_out.data; }},
      {"partial_out", "no view", [](A& a) { a.partial_out = View(); }},
      {"partial_out", "dtype UINT8", [](A& a) { a.partial_out.dtype = kUint8; }},
      {"partial_out", "dim 3 = 511, expected 512 (d_v of out)", [](A& a) { a.partial_out.size[3] = 511; }},
      {"partial_out", "dim 1 = 2, expected 3 (tokens of out)", [](A& a) { a.partial_out.size[1] = 2; }},
      {"partial_lse", "no view", [](A& a) { a.partial_lse = View(); }},
      {"partial_lse", "dim 0 = 3, expected 4 (parts of partial_out)", [](A& a) { a.partial_lse.size[0] = 3; }},
      {"partial_lse", "dtype FP16, expected FP32", [](A& a) { a.partial_lse.dtype = kFp16; }},
      {"partial_lse", "on cuda:1, expected cpu", [](A& a) { a.partial_lse.device = cuda_device(1); }},
      {"sink", "dim 0 = 3, expected 5", [](A& a) { a.sink = View::contiguous(fake_memory(4), kFp32, kCpu, {3}); }},
      {"lse", "dim 1 = 3, expected 5", [](A& a) { a.lse = View::contiguous(fake_memory(3), kFp32, kCpu, {3, 3}); }},
      {"lse", "memory shared with partial_lse", [](A& a) { a.lse.data = a.partial_lse.data; }},
  };
  for (BadArgs const& bad : cases) {
    MergeArgs args = good_args();
    bad.spoil(args);
    SCOPED_TRACE(std::string(bad.argument) + ": " + bad.fragment);
    expect_error({FLASHMLA_INVALID_ARGUMENT, "merge", bad.argument, bad.fragment}, [&] { validate(args); });
  }
}

}  // namespace
}  // namespace flashmla::core
