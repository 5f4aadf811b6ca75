// What is refused before the driver is asked; encoding itself needs a driver (tests/gpu).
#include "cuda/tensor_map.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "cuda/backend.hpp"

namespace flashmla::cuda {
namespace {

constexpr int64_t kTokenStride = 576, kPageStride = 64 * 576;
alignas(256) char g_cache[2048];

/// A fused cache of 64-token pages and one KV head.
CacheGeometry fused(int64_t base_byte, int64_t num_pages, int64_t page_stride, int64_t token_stride) {
  char const* const base = g_cache + base_byte;
  return {{base, page_stride, token_stride, 0, 512}, {base + 1024, page_stride, token_stride, 0, 64}, true, num_pages, 64, 1};
}

/// The message, or "" when maps were made.
std::string refusal(CacheGeometry const& cache, flashmla_status expected) {
  try {
    make_cache_tensor_maps(cache, {64, 2, CU_TENSOR_MAP_L2_PROMOTION_L2_128B}, FLASHMLA_BF16);
    return "";
  } catch (core::Error const& error) {
    EXPECT_EQ(error.status(), expected) << error.what();
    return error.what();
  }
}

TEST(TensorMap, misalignmentNamesBaseAndStrides) {
  struct Case {
    int64_t base_byte, page_stride, token_stride;
  };
  for (Case const& c : {Case{2, kPageStride, kTokenStride}, Case{8, kPageStride, kTokenStride}, Case{0, kPageStride + 4, kTokenStride},
                        Case{0, kPageStride, kTokenStride + 1}}) {
    std::string const text = refusal(fused(c.base_byte, 4, c.page_stride, c.token_stride), FLASHMLA_INVALID_ARGUMENT);
    EXPECT_EQ(text.rfind("decode: cache: got base at byte " + std::to_string(c.base_byte) + " of 16, page stride " +
                             std::to_string(c.page_stride * 2) + " bytes",
                         0),
              0U)
        << text;
    EXPECT_NE(text.find("expected multiples of 16 bytes"), std::string::npos) << text;
  }
}

TEST(TensorMap, ofAPairTheWrongTensorIsNamed) {
  CacheGeometry cache{{g_cache, 64 * 512, 512, 0, 512}, {g_cache + 1024, 64 * 64, 64, 0, 64}, false, 4, 64, 1};
  cache.rope.token_stride = 63;
  EXPECT_EQ(refusal(cache, FLASHMLA_INVALID_ARGUMENT).rfind("decode: kpe: got base at byte 0 of 16", 0), 0U);
  cache.latent.base = g_cache + 4;
  EXPECT_EQ(refusal(cache, FLASHMLA_INVALID_ARGUMENT).rfind("decode: ckv: got base at byte 4 of 16", 0), 0U);
}

TEST(TensorMap, headStridesCountWhereThereAreSeveral) {
  CacheGeometry cache = fused(0, 4, kPageStride, kTokenStride);
  cache.heads = 2;
  cache.latent.head_stride = cache.rope.head_stride = 4;
  EXPECT_NE(refusal(cache, FLASHMLA_INVALID_ARGUMENT).find("head stride 8 bytes"), std::string::npos);
  cache.latent.head_stride = cache.rope.head_stride = -8;
  EXPECT_NE(refusal(cache, FLASHMLA_INVALID_ARGUMENT).find("head stride -16 bytes"), std::string::npos);
}

TEST(TensorMap, stridesOutOfRange) {
  for (CacheGeometry const& cache :
       {fused(0, 4, -kPageStride, kTokenStride), fused(0, 4, int64_t{1} << 40, kTokenStride), fused(0, 4, kPageStride, 0)}) {
    std::string const text = refusal(cache, FLASHMLA_INVALID_ARGUMENT);
    EXPECT_EQ(text.rfind("decode: cache: got page stride ", 0), 0U) << text;
  }
}

TEST(TensorMap, strideOfOnePageIsNotLookedAt) {
  if (driver().reason.empty()) {
    EXPECT_EQ(refusal(fused(0, 1, 3, kTokenStride), FLASHMLA_OK), "");
    EXPECT_EQ(refusal(fused(0, 0, 3, kTokenStride), FLASHMLA_OK), "");
  } else {  // the arguments are fine, so the driver is what is missing
    EXPECT_NE(refusal(fused(0, 1, 3, kTokenStride), FLASHMLA_UNSUPPORTED), "");
    EXPECT_NE(refusal(fused(0, 4, kPageStride, kTokenStride), FLASHMLA_UNSUPPORTED), "");
  }
}

}  // namespace
}  // namespace flashmla::cuda
