// What is refused before the driver is asked; encoding itself needs a driver (tests/gpu).
#include "cuda/tensor_map.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "cuda/backend.hpp"

namespace flashmla::cuda {
namespace {

constexpr int64_t kTokenStride = 576, kPageStride = 64 * 576;
alignas(256) char g_cache[256];

struct Cache {
  int64_t base_byte, num_pages, page_stride, token_stride;
};

/// The message, or "" when a map was made.
std::string refusal(Cache const& c, flashmla_status expected) {
  try {
    make_cache_tensor_maps(g_cache + c.base_byte, c.num_pages, c.page_stride, c.token_stride, FLASHMLA_BF16);
    return "";
  } catch (core::Error const& error) {
    EXPECT_EQ(error.status(), expected) << error.what();
    return error.what();
  }
}

TEST(TensorMap, misalignmentNamesBaseAndStrides) {
  Cache const misaligned[] = {{2, 4, kPageStride, kTokenStride},
                              {8, 4, kPageStride, kTokenStride},
                              {0, 4, kPageStride + 4, kTokenStride},
                              {0, 4, kPageStride, kTokenStride + 1}};
  for (Cache const& c : misaligned) {
    std::string const text = refusal(c, FLASHMLA_INVALID_ARGUMENT);
    EXPECT_EQ(text.rfind("decode: cache: got base at byte " + std::to_string(c.base_byte) + " of 16, page stride " +
                             std::to_string(c.page_stride * 2) + " bytes",
                         0),
              0U)
        << text;
    EXPECT_NE(text.find("expected multiples of 16 bytes"), std::string::npos) << text;
  }
}

TEST(TensorMap, stridesOutOfRange) {
  for (Cache const& c :
       {Cache{0, 4, -kPageStride, kTokenStride}, Cache{0, 4, int64_t{1} << 40, kTokenStride}, Cache{0, 4, kPageStride, 0}}) {
    std::string const text = refusal(c, FLASHMLA_INVALID_ARGUMENT);
    EXPECT_EQ(text.rfind("decode: cache: got page stride ", 0), 0U) << text;
  }
}

TEST(TensorMap, strideOfOnePageIsNotLookedAt) {
  if (driver().reason.empty()) {
    EXPECT_EQ(refusal({0, 1, 3, kTokenStride}, FLASHMLA_OK), "");
    EXPECT_EQ(refusal({0, 0, 3, kTokenStride}, FLASHMLA_OK), "");
  } else {  // the arguments are fine, so the driver is what is missing
    EXPECT_NE(refusal({0, 1, 3, kTokenStride}, FLASHMLA_UNSUPPORTED), "");
    EXPECT_NE(refusal({0, 4, kPageStride, kTokenStride}, FLASHMLA_UNSUPPORTED), "");
  }
}

}  // namespace
}  // namespace flashmla::cuda
