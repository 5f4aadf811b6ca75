#include "tools/flashmla/decode_engine.hpp"

#include <gtest/gtest.h>

#include "tools/flashmla/row_check.hpp"

namespace flashmla::tools {
namespace {

EngineShape small_shape() {
  EngineShape shape;
  shape.heads = 4;
  shape.layers = 3;
  shape.page_tokens = 16;
  shape.num_pages = 20;
  shape.max_batch = 4;
  shape.max_request_pages = 8;
  return shape;
}

/// The engine under a scheduler, every request of every step checked in the layer that is watched.
void expect_right(EngineShape const& shape) {
  auto const device = open_host_device();
  Target target(kCpu);
  target.num_threads = 2;
  double filled = 0;
  DecodeEngine engine(shape, target, *device, [&](double fraction) { filled = fraction; });
  EXPECT_EQ(filled, 1.0);
  ServingLoop loop({{0, 0, 5}, {0, 37, 9}, {0, 100, 3}, {0, 15, 12}, {0, 60, 7}}, {shape.num_pages, shape.page_tokens, shape.max_batch});
  int64_t step = 0;
  for (; !loop.finished(); ++step) {
    ASSERT_LT(step, 200);
    auto const& batch = loop.begin_step(0);
    if (batch.empty()) continue;
    engine.step(batch, step, static_cast<int32_t>(step % shape.layers));
    for (size_t row = 0; row < batch.size(); ++row) {
      SpotCheck const check = engine.spot_check(batch, row, 2);
      EXPECT_LE(check.relative_error, relative_error_bound(shape.type.dtype)) << "step " << step << ", row " << row;
      EXPECT_LE(check.lse_error, 1e-4);
      EXPECT_TRUE(check.appended) << "the new token is not in the cache";
      EXPECT_EQ(check.kv_tokens, batch[row].kv_tokens);
      EXPECT_EQ(check.layer, step % shape.layers);
    }
    loop.end_step();
  }
  EXPECT_EQ(loop.counts().finished, 5);
  EXPECT_FALSE(engine.describe().empty());
}

TEST(DecodeEngine, EveryStepAgreesWithTheReference) { expect_right(small_shape()); }

TEST(DecodeEngine, Fp16AgreesToo) {
  EngineShape shape = small_shape();
  shape.type = {kFp16, kKvFp16_576};
  expect_right(shape);
}

/// Prompts in common, on pages that end inside and outside of blocks: what is shared or copied is what the reference reads.
TEST(DecodeEngine, SharedAndCopiedPagesAgreeWithTheReference) {
  EngineShape shape = small_shape();
  shape.num_pages = 260;
  shape.max_request_pages = 70;
  auto const device = open_host_device();
  Target target(kCpu);
  target.num_threads = 2;
  DecodeEngine engine(shape, target, *device, [](double) {});
  ServingLoop loop(
      {{0, 1030, 3, {1, 2, 3}}, {0, 1030, 9, {1, 2, 3}}, {0, 700, 4, {1, 4}}, {0, 1030, 20, {1, 2, 3}}, {0, 1030, 6, {1, 2, 3}}},
      {shape.num_pages, shape.page_tokens, shape.max_batch});
  int64_t copies = 0;
  for (int64_t step = 0; !loop.finished(); ++step) {
    ASSERT_LT(step, 200);
    auto const& batch = loop.begin_step(0);
    engine.copy_pages(loop.copies());
    for (PageCopy const& copy : loop.copies())
      for (int32_t layer = 0; layer < shape.layers; ++layer) {
        ++copies;
        EXPECT_EQ(engine.download_page(copy.target, layer), engine.download_page(copy.source, layer));
      }
    engine.step(batch, step, static_cast<int32_t>(step % shape.layers));
    for (size_t row = 0; row < batch.size(); ++row) {
      SpotCheck const check = engine.spot_check(batch, row, 2);
      EXPECT_LE(check.relative_error, relative_error_bound(shape.type.dtype)) << "step " << step << ", row " << row;
      EXPECT_TRUE(check.appended) << "the new token is not in the cache, or another request wrote over it";
    }
    loop.end_step();
  }
  EXPECT_EQ(loop.counts().copied_pages, 3);
  EXPECT_EQ(copies, 3 * shape.layers);
}

TEST(DecodeEngine, BytesCountEveryLayer) {
  EngineShape shape = small_shape();
  int64_t const three = engine_bytes(shape);
  shape.layers = 4;
  EXPECT_EQ(engine_bytes(shape) - three, shape.num_pages * shape.page_tokens * 1152);
}

TEST(DecodeEngine, AProblemThatTheLibraryRefusesThrows) {
  EngineShape shape = small_shape();
  shape.heads = 1000;
  auto const device = open_host_device();
  EXPECT_THROW(DecodeEngine(shape, Target(kCpu), *device, [](double) {}), Error);
}

}  // namespace
}  // namespace flashmla::tools
