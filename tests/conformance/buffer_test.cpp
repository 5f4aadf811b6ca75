#include "conformance/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "conformance/mirrored_memory.hpp"

namespace flashmla::conformance {
namespace {

TEST(Buffer, StartsAsPoison) {
  auto const memory = make_host_memory();
  Buffer const buffer(*memory, 64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.device()) % 256, 0u);
  EXPECT_EQ(buffer.host<void>(), buffer.device());
  EXPECT_TRUE(std::isnan(buffer.host<float>()[15]));
  EXPECT_EQ(buffer.host<int32_t>()[0], -1);
  EXPECT_TRUE(std::isnan(buffer.host<float>()[-1])) << "the guard before";
  EXPECT_TRUE(std::isnan(buffer.host<float>()[16])) << "the guard behind";
}

TEST(Buffer, GuardsShowWritesOutside) {
  auto const memory = make_host_memory();
  for (int64_t const at : {-256, -1, 64, 64 + 255}) {
    Buffer const buffer(*memory, 64);
    buffer.host()[0] = buffer.host()[63] = std::byte{0};
    EXPECT_TRUE(buffer.guards_intact());
    buffer.host()[at] = std::byte{0xfe};
    EXPECT_FALSE(buffer.guards_intact()) << at;
  }
}

TEST(Buffer, CopiesWhereTheHostCannotReach) {
  test::MirroredMemory memory;
  {
    Buffer buffer(memory, 8);
    ASSERT_NE(buffer.host<void>(), buffer.device());
    buffer.host<int32_t>()[1] = 7;
    EXPECT_EQ(static_cast<int32_t*>(buffer.device())[1], -1);
    buffer.upload();
    EXPECT_EQ(static_cast<int32_t*>(buffer.device())[1], 7);
    static_cast<int32_t*>(buffer.device())[2] = 5;  // the guard
    EXPECT_TRUE(buffer.guards_intact());
    buffer.download();
    EXPECT_FALSE(buffer.guards_intact());
    buffer.poison();
    EXPECT_EQ(static_cast<int32_t*>(buffer.device())[1], -1);

    Buffer const moved = std::move(buffer);
    EXPECT_EQ(moved.bytes(), 8u);
    EXPECT_EQ(memory.live, 1);
  }
  EXPECT_EQ(memory.live, 0);
}

TEST(Buffer, MirrorsItsGuardsOnly) {
  for (int64_t const at : {-1, 0, 63, 64}) {
    test::MirroredMemory memory;
    Buffer buffer(memory, 64, Mirror::kGuards);
    auto* const device = static_cast<unsigned char*>(buffer.device());
    EXPECT_EQ(device[0], 0xff);
    EXPECT_EQ(device[64 + 255], 0xff);
    device[at] = 7;
    buffer.download();
    EXPECT_EQ(buffer.guards_intact(), at == 0 || at == 63) << at;
    buffer.poison();
    buffer.download();
    EXPECT_TRUE(buffer.guards_intact());
    EXPECT_EQ(device[at], 0xff);
  }
}

}  // namespace
}  // namespace flashmla::conformance
