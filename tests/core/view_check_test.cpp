// Caller-owned buffers; shapes, strides and overlap are tested through the calls that have them.
#include "core/view_check.hpp"

#include <gtest/gtest.h>

#include "core/calls.hpp"
#include "core/expect_error.hpp"
#include "core/test_views.hpp"

namespace flashmla::core {
namespace {

constexpr flashmla_status kInvalid = FLASHMLA_INVALID_ARGUMENT;

TEST(ValidateBuffer, AnyDtypeAndShapeOfEnoughBytes) {
  EXPECT_EQ(validate_buffer("plan_reset", "workspace", View::bytes(fake_memory(0), 1024, kCpu), 1024, kCpu), fake_memory(0));
  EXPECT_EQ(validate_buffer("plan_reset", "workspace", View::contiguous(fake_memory(0), kFp32, kCpu, {16, 16}), 1024, kCpu),
            fake_memory(0));
  EXPECT_EQ(validate_buffer("plan_reset", "workspace", View::bytes(fake_memory(0), 5000, cuda_device(2)), 1024, cuda_device(2)),
            fake_memory(0));
}

TEST(ValidateBuffer, BadBuffers) {
  auto const refuse = [](char const* fragment, View const& view, size_t bytes = 1024) {
    SCOPED_TRACE(fragment);
    expect_error({kInvalid, "plan_reset", "workspace", fragment}, [&] { validate_buffer("plan_reset", "workspace", view, bytes, kCpu); });
  };
  refuse("got no view, expected 1024 bytes on cpu", View());
  refuse("got 1023 bytes, expected at least 1024", View::bytes(fake_memory(0), 1023, kCpu));
  refuse("got null data", View::bytes(nullptr, 1024, kCpu));
  refuse("on cuda:0, expected cpu", View::bytes(fake_memory(0), 1024, cuda_device(0)));
  refuse("128 bytes past a multiple of 256", View::bytes(static_cast<char*>(fake_memory(0)) + 128, 1024, kCpu));
  refuse("(contiguous)", View::strided(fake_memory(0), kFp32, kCpu, {16, 16}, {32, 1}));
  refuse("dim 0 = -1024", View::contiguous(fake_memory(0), kUint8, kCpu, {-1024}));
  refuse("more than 2^63 bytes", View::contiguous(fake_memory(0), kFp32, kCpu, {int64_t{1} << 62}));
  refuse("dtype NONE", View::contiguous(fake_memory(0), FLASHMLA_DTYPE_NONE, kCpu, {1024}));
  View deep = View::bytes(fake_memory(0), 1024, kCpu);
  deep.rank = 5;
  refuse("rank 5", deep);
  refuse("rank 0", View::contiguous(fake_memory(0), kUint8, kCpu, {}));
}

TEST(ViewCheck, OverlapIsOfBytesNotOfExtents) {
  auto const overlaps = [](View const& a, View const& b) {
    ViewCheck check("merge", kCpu);
    check.known_outputs({{"a", &a}});
    check.known_inputs({{"b", &b}});
    try {
      check.check_overlap();
      return false;
    } catch (Error const&) {
      return true;
    }
  };
  char* const base = static_cast<char*>(fake_memory(0));
  auto const block = [&](int64_t at, int64_t bytes) { return View::contiguous(base + at, kUint8, kCpu, {bytes}); };
  auto const column = [&](int64_t at, int64_t bytes) { return View::strided(base + at, kUint8, kCpu, {10, bytes}, {100, 1}); };
  EXPECT_FALSE(overlaps(block(0, 10), block(10, 10)));
  EXPECT_TRUE(overlaps(block(0, 11), block(10, 10)));
  EXPECT_FALSE(overlaps(column(0, 40), column(40, 60)));
  EXPECT_FALSE(overlaps(column(40, 60), column(0, 40)));
  EXPECT_TRUE(overlaps(column(0, 41), column(40, 60)));
  EXPECT_TRUE(overlaps(column(40, 61), column(0, 40)));
  EXPECT_TRUE(overlaps(column(0, 40), column(30, 1)));
  EXPECT_FALSE(overlaps(column(0, 40), block(50, 20)));
  EXPECT_TRUE(overlaps(column(0, 40), block(50, 51)));
  EXPECT_FALSE(overlaps(block(50, 20), column(0, 40)));
  EXPECT_FALSE(overlaps(column(0, 40), View::contiguous(base, kUint8, kCpu, {0})));
  // Rows of 100 and rows of 150 bytes meet every 50.
  EXPECT_FALSE(overlaps(column(0, 20), View::strided(base + 20, kUint8, kCpu, {5, 30}, {150, 1})));
  EXPECT_TRUE(overlaps(column(0, 20), View::strided(base + 20, kUint8, kCpu, {5, 81}, {150, 1})));
}

}  // namespace
}  // namespace flashmla::core
