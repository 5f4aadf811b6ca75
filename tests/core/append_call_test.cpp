#include <gtest/gtest.h>

#include <flashmla/ops.hpp>
#include <functional>
#include <vector>

#include "core/calls.hpp"
#include "core/expect_error.hpp"
#include "core/test_views.hpp"

namespace flashmla::core {
namespace {

constexpr int64_t kTokens = 7, kPages = 9;

AppendArgs good_args() {
  AppendArgs args;
  args.kv_format = FLASHMLA_KV_FP16_576;
  args.kv = View::strided(fake_memory(0), kFp16, kCpu, {kTokens, 576}, {600, 1});
  args.slot_mapping = View::contiguous(fake_memory(1), kInt64, kCpu, {kTokens});
  args.cache = View::strided(fake_memory(2), kFp16, kCpu, {kPages, 32, 576}, {32 * 576 + 8, 576, 1});
  return args;
}

void use_pair(AppendArgs& args) {
  args.kv = View();
  args.ckv = View::contiguous(fake_memory(3), kFp16, kCpu, {kTokens, 512});
  args.kpe = View::contiguous(fake_memory(4), kFp16, kCpu, {kTokens, 64});
}

TEST(AppendCall, AFusedCallIsReducedToAPair) {
  AppendArgs args = good_args();
  args.fault = View::contiguous(fake_memory(5), kInt32, kCpu, {8});
  AppendCall const call = validate(args);
  EXPECT_EQ(call.tokens, kTokens);
  EXPECT_EQ(call.ckv, fake_memory(0));
  EXPECT_EQ(call.kpe, static_cast<char*>(fake_memory(0)) + 1024);
  EXPECT_EQ(call.kpe_token_stride, 600);
  EXPECT_EQ(call.num_pages, kPages);
  EXPECT_EQ(call.page_tokens, 32);
  EXPECT_EQ(call.page_stride, 32 * 576 + 8);
  EXPECT_EQ(call.token_stride, 576);
  EXPECT_EQ(call.fault, fake_memory(5));
  EXPECT_EQ(call.format->id, FLASHMLA_KV_FP16_576);
}

TEST(AppendCall, Float32IsTheCpus) {
  AppendArgs args = good_args();
  args.kv_format = FLASHMLA_KV_FP32_576;
  args.kv = View::contiguous(fake_memory(0), kFp32, kCpu, {kTokens, 576});
  args.cache = View::contiguous(fake_memory(2), kFp32, kCpu, {kPages, 32, 576});
  EXPECT_EQ(validate(args).kpe, static_cast<char*>(fake_memory(0)) + 2048);
  for (flashmla_view* const view : {&args.kv, &args.cache, &args.slot_mapping}) view->device = cuda_device(0);
  expect_error({FLASHMLA_UNSUPPORTED, "append", "kv_format", "got FP32_576, expected BF16_576, FP16_576, BF16_320 or BF16_288 on a GPU"},
               [&] { validate(args); });
}

TEST(AppendCall, ShortKeys) {
  for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_320, FLASHMLA_KV_BF16_288}) {
    int32_t const width = find_kv_format(format)->qk_dim;
    AppendArgs args = good_args();
    args.kv_format = format;
    args.kv = View::contiguous(fake_memory(0), kBf16, kCpu, {kTokens, width});
    args.cache = View::contiguous(fake_memory(2), kBf16, kCpu, {kPages, 32, width});
    EXPECT_EQ(validate(args).kpe, static_cast<char*>(fake_memory(0)) + 512);
    for (flashmla_view* const view : {&args.kv, &args.cache, &args.slot_mapping}) view->device = cuda_device(0);
    EXPECT_EQ(validate(args).format->id, format);
  }
}

TEST(AppendCall, APairAndACacheWithItsHead) {
  AppendArgs args = good_args();
  use_pair(args);
  args.cache = View::contiguous(fake_memory(2), kFp16, kCpu, {kPages, 32, 1, 576});
  AppendCall const call = validate(args);
  EXPECT_EQ(call.kpe, fake_memory(4));
  EXPECT_EQ(call.kpe_token_stride, 64);
  EXPECT_EQ(call.token_stride, 576);
  EXPECT_EQ(call.fault, nullptr);
}

TEST(AppendCall, NoTokensIsLegal) {
  AppendArgs args = good_args();
  args.kv = View::contiguous(nullptr, kFp16, kCpu, {0, 576});
  args.slot_mapping = View::contiguous(nullptr, kInt64, kCpu, {0});
  EXPECT_EQ(validate(args).tokens, 0);
}

struct BadArgs {
  flashmla_status status;
  char const* argument;
  char const* fragment;
  std::function<void(AppendArgs&)> spoil;
};

TEST(AppendCall, BadArguments) {
  using A = AppendArgs;
  constexpr flashmla_status kInvalid = FLASHMLA_INVALID_ARGUMENT, kUnsupported = FLASHMLA_UNSUPPORTED;
  std::vector<BadArgs> const cases = {
      {kInvalid, "struct_size", "got 3", [](A& a) { a.struct_size = 3; }},
      {kInvalid, "flags", "unknown flag 8", [](A& a) { a.flags = 8; }},
      {kInvalid, "reserved", "got 1", [](A& a) { a.reserved = 1; }},
      {kInvalid, "kv_format", "required", [](A& a) { a.kv_format = 0; }},
      {kInvalid, "kv_format", "got 1000", [](A& a) { a.kv_format = 1000; }},
      {kUnsupported, "kv_format", "got FP8_V4_584", [](A& a) { a.kv_format = FLASHMLA_KV_FP8_V4_584; }},
      {kInvalid, "slot_mapping", "no view", [](A& a) { a.slot_mapping = View(); }},
      {kInvalid, "slot_mapping", "dtype INT32, expected INT64", [](A& a) { a.slot_mapping.dtype = kInt32; }},
      {kInvalid, "slot_mapping", "rank 0", [](A& a) { a.slot_mapping.rank = 0; }},
      {kInvalid, "kv", "dim 0 = 6, expected 7 (tokens, from slot_mapping)", [](A& a) { a.kv.size[0] = 6; }},
      {kInvalid, "kv", "dtype BF16, expected FP16", [](A& a) { a.kv.dtype = kBf16; }},
      {kInvalid, "kv", "stride 1 = 2", [](A& a) { a.kv.stride[1] = 2; }},
      {kInvalid, "kv", "no view, expected either kv or the pair ckv and kpe", [](A& a) { a.kv = View(); }},
      {kInvalid, "kv", "both it and ckv", [](A& a) { a.ckv = View::contiguous(fake_memory(3), kFp16, kCpu, {kTokens, 512}); }},
      {kInvalid, "kpe", "no view",
       [](A& a) {
         use_pair(a);
         a.kpe = View();
       }},
      {kInvalid, "cache", "no view", [](A& a) { a.cache = View(); }},
      {kInvalid, "cache", "dim 2 = 512, expected 576", [](A& a) { a.cache.size[2] = 512; }},
      {kInvalid, "cache", "dim 2 = 2, expected 1 (KV heads)",
       [](A& a) { a.cache = View::contiguous(fake_memory(2), kFp16, kCpu, {kPages, 32, 2, 576}); }},
      {kInvalid, "cache", "stride 1 = 500, expected at least 576", [](A& a) { a.cache.stride[1] = 500; }},
      {kInvalid, "cache", "memory shared with kv", [](A& a) { a.cache.data = a.kv.data; }},
      {kInvalid, "cache", "device kind 5", [](A& a) { a.cache.device.kind = 5; }},
      {kInvalid, "fault", "dim 0 = 4, expected 8", [](A& a) { a.fault = View::contiguous(fake_memory(5), kInt32, kCpu, {4}); }},
      {kInvalid, "fault", "memory shared with slot_mapping", [](A& a) { a.fault = View::contiguous(fake_memory(1), kInt32, kCpu, {8}); }},
  };
  for (BadArgs const& bad : cases) {
    AppendArgs args = good_args();
    bad.spoil(args);
    SCOPED_TRACE(std::string(bad.argument) + ": " + bad.fragment);
    expect_error({bad.status, "append", bad.argument, bad.fragment}, [&] { validate(args); });
  }
}

}  // namespace
}  // namespace flashmla::core
