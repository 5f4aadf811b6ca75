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

TEST(ErrorTable, KnowsTheGrammar) {
  EXPECT_TRUE(is_in_grammar("decode: lengths.kv_len: got rank 2, expected rank 1"));
  EXPECT_TRUE(is_in_grammar("copy_pages: caches[1]: got a: b, expected c"));
  for (char const* const text : {"", "decode: q", "decode: q: got 1", "decode: q: got , expected 2", "decode: q: got 1, expected ",
                                 "q: got 1, expected 2", "decode: a q: got 1, expected 2", "decode: q: got 1\n, expected 2"})
    EXPECT_FALSE(is_in_grammar(text)) << text;
}

}  // namespace
}  // namespace flashmla::errors
