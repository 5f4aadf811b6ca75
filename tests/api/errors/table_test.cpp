#include "api/errors/table.hpp"

#include <gtest/gtest.h>

namespace flashmla::errors {
namespace {

TEST(ErrorTable, DotsStandForAnyText) {
  EXPECT_TRUE(matches("decode: q: got 1, expected 2", "decode: q: got 1, expected 2"));
  EXPECT_TRUE(matches("decode: q: got 1, expected 2", "decode: ... got 1, ..."));
  EXPECT_TRUE(matches("decode: q: got 17 bytes, expected 2", "decode: q: got ... bytes, expected 2"));
  EXPECT_FALSE(matches("decode: q: got 1, expected 23", "decode: q: got 1, expected 2"));
  EXPECT_FALSE(matches("a decode: q: got 1, expected 2", "decode: q: got 1, expected 2"));
  EXPECT_FALSE(matches("decode: q: got 1, expected 2", "decode: ... got 3, ..."));
}

}  // namespace
}  // namespace flashmla::errors
