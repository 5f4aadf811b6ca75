#include <gtest/gtest.h>

#include <flashmla/ops.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/calls.hpp"
#include "core/expect_error.hpp"
#include "core/test_views.hpp"

namespace flashmla::core {
namespace {

constexpr int64_t kPages = 9, kPageTokens = 32;

struct Args {
  std::vector<flashmla_view> caches;
  std::vector<flashmla_page_copy> copies = {{0, 1}, {-1, -1}, {0, 2}, {8, 7}};
  flashmla_copy_pages_args args{};

  Args() {
    for (int layer = 0; layer < 3; ++layer)
      caches.push_back(View::strided(fake_memory(layer), kFp16, kCpu, {kPages, kPageTokens, 576}, {kPageTokens * 576 + 8, 576, 1}));
    args.struct_size = sizeof args;
  }
  CopyPagesCall validate() {
    args.caches = args.num_caches < 0 ? nullptr : caches.data();
    args.num_caches = static_cast<int64_t>(caches.size());
    args.copies = copies.data();
    args.num_copies = static_cast<int64_t>(copies.size());
    return core::validate(args);
  }
};

TEST(CopyPagesCall, APageWithoutGapsIsOneRow) {
  Args args;
  CopyPagesCall const call = args.validate();
  EXPECT_EQ(call.num_caches, 3);
  EXPECT_EQ(call.num_copies, 4);
  EXPECT_EQ(call.num_pages, kPages);
  EXPECT_EQ(call.page_stride, kPageTokens * 576 + 8);
  EXPECT_EQ(call.rows[0] * call.rows[1], 1);
  EXPECT_EQ(call.width, kPageTokens * 576);
  EXPECT_EQ(call.elem_bytes, 2);
  EXPECT_EQ(call.caches[2].data, fake_memory(2));
}

/// Sizes whose product is no number of 64 bits are legal as long as a view has no element.
TEST(CopyPagesCall, NoPagesOfAnySizeAreNothing) {
  Args args;
  constexpr int64_t kHuge = int64_t{1} << 62;
  args.caches = {View::contiguous(nullptr, kFp16, kCpu, {0, kHuge, kHuge, 4})};
  args.copies = {{-1, -1}};
  EXPECT_EQ(args.validate().width, 0);
}

TEST(CopyPagesCall, RowsAreAsLongAsTheMemoryAllows) {
  struct Layout {
    flashmla_view cache;
    int64_t rows[2], width;
  };
  std::vector<Layout> const layouts = {
      {View::contiguous(fake_memory(0), kUint8, kCpu, {kPages, 37440}), {1, 1}, 37440},
      {View::contiguous(fake_memory(0), kUint8, kCpu, {kPages, 64, 1, 656}), {1, 1}, 64 * 656},
      {View::strided(fake_memory(0), kFp16, kCpu, {kPages, 32, 576}, {32 * 640, 640, 1}), {1, 32}, 576},
      {View::strided(fake_memory(0), kFp16, kCpu, {kPages, 32, 1, 576}, {32 * 640, 640, 7, 1}), {32, 1}, 576},
      {View::strided(fake_memory(0), kFp16, kCpu, {kPages, 32, 2, 576}, {32 * 1200, 1200, 576, 1}), {32, 1}, 1152},
      {View::strided(fake_memory(0), kFp16, kCpu, {kPages, 32, 2, 576}, {64 * 576, 576, 32 * 576, 1}), {32, 2}, 576},
      {View::contiguous(fake_memory(0), kFp16, kCpu, {kPages, 0, 576}), {1, 0}, 0},
  };
  for (size_t i = 0; i < layouts.size(); ++i) {
    Args args;
    args.caches = {layouts[i].cache};
    CopyPagesCall const call = args.validate();
    EXPECT_EQ(call.width, layouts[i].width) << "layout " << i;
    if (call.width == 0) continue;
    EXPECT_EQ(call.rows[0], layouts[i].rows[0]) << "layout " << i;
    EXPECT_EQ(call.rows[1], layouts[i].rows[1]) << "layout " << i;
  }
}

TEST(CopyPagesCall, LayersMayLieBetweenEachOthersPages) {
  Args args;
  char* const memory = static_cast<char*>(fake_memory(0));
  for (int layer = 0; layer < 3; ++layer)
    args.caches[static_cast<size_t>(layer)] =
        View::strided(memory + layer * 32 * 1152, kFp16, kCpu, {kPages, 32, 576}, {3 * 32 * 576, 576, 1});
  EXPECT_EQ(args.validate().page_stride, 3 * 32 * 576);
}

TEST(CopyPagesCall, NoCopiesIsLegal) {
  Args args;
  args.copies.clear();
  EXPECT_EQ(args.validate().num_copies, 0);
}

struct BadArgs {
  char const* argument;
  char const* fragment;
  std::function<void(Args&)> spoil;
};

TEST(CopyPagesCall, BadArguments) {
  std::vector<BadArgs> const cases = {
      {"struct_size", "got 3", [](Args& a) { a.args.struct_size = 3; }},
      {"flags", "unknown flag 8", [](Args& a) { a.args.flags = 8; }},
      {"num_caches", "got 0, expected at least 1", [](Args& a) { a.caches.clear(); }},
      {"caches", "got null, expected an array of 3", [](Args& a) { a.args.num_caches = -1; }},
      {"caches[0]", "no view", [](Args& a) { a.caches[0] = View(); }},
      {"caches[0]", "device kind 5", [](Args& a) { a.caches[0].device.kind = 5; }},
      {"caches[0]", "expected a dtype of known size", [](Args& a) { a.caches[0].dtype = 77; }},
      {"caches[0]", "rank 1, expected rank 2 to 4", [](Args& a) { a.caches[0].rank = 1; }},
      {"caches[0]", "stride 2 = 2", [](Args& a) { a.caches[0].stride[2] = 2; }},
      {"caches[0]", "stride 1 = 500, expected at least 576", [](Args& a) { a.caches[0].stride[1] = 500; }},
      {"caches[0]", "null data", [](Args& a) { a.caches[0].data = nullptr; }},
      {"caches[2]", "rank 4, expected rank 3",
       [](Args& a) { a.caches[2] = View::contiguous(fake_memory(2), kFp16, kCpu, {9, 32, 1, 576}); }},
      {"caches[1]", "dim 0 = 8, expected 9 (as caches[0])", [](Args& a) { a.caches[1].size[0] = 8; }},
      {"caches[1]", "dtype BF16, expected FP16", [](Args& a) { a.caches[1].dtype = kBf16; }},
      {"caches[2]", "a view on cuda:0, expected cpu", [](Args& a) { a.caches[2].device = {FLASHMLA_CUDA, 0}; }},
      {"caches[2]", "stride 0 = 18432, expected 18440 (as caches[0])", [](Args& a) { a.caches[2].stride[0] = 18432; }},
      {"caches[1]", "memory shared with caches[0]", [](Args& a) { a.caches[1].data = a.caches[0].data; }},
      {"caches[2]", "memory shared with caches[0]", [](Args& a) { a.caches[2].data = static_cast<char*>(a.caches[0].data) + 16 * 1152; }},
      {"copies[3].target", "got 9, expected a page id in [0, 9)", [](Args& a) { a.copies[3].target = 9; }},
      {"copies[0].source", "got 9, expected a page id in [0, 9)", [](Args& a) { a.copies[0].source = 9; }},
      {"copies[1].source", "got -1, expected a page id in [0, 9), or a pair of -1", [](Args& a) { a.copies[1].target = 3; }},
      {"copies[1].target", "got -1, expected a page id in [0, 9), or a pair of -1", [](Args& a) { a.copies[1].source = 3; }},
      {"copies[3].target", "got 1, expected a page that no other copy writes (copies[0] does)", [](Args& a) { a.copies[3].target = 1; }},
      {"copies[2].source", "got 7, expected a page that no copy writes (copies[3] does", [](Args& a) { a.copies[2].source = 7; }},
      {"copies[0].source", "got 1, expected a page that no copy writes (copies[0] does", [](Args& a) { a.copies[0].source = 1; }},
  };
  for (BadArgs const& bad : cases) {
    Args args;
    bad.spoil(args);
    SCOPED_TRACE(std::string(bad.argument) + ": " + bad.fragment);
    expect_error({FLASHMLA_INVALID_ARGUMENT, "copy_pages", bad.argument, bad.fragment}, [&] { args.validate(); });
  }
  Args args;
  args.args.struct_size = sizeof args.args;
  args.args.caches = args.caches.data();
  args.args.num_caches = 1;
  args.args.num_copies = -2;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "copy_pages", "num_copies", "got -2"}, [&] { validate(args.args); });
  args.args.num_copies = 2;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "copy_pages", "copies", "got null"}, [&] { validate(args.args); });
}

}  // namespace
}  // namespace flashmla::core
