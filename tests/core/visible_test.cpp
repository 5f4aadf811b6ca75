#include "core/visible.hpp"

#include <gtest/gtest.h>

namespace flashmla::core {
namespace {

static_assert(num_visible(100, 4, 3, true) == 100 && num_visible(100, 4, 0, true) == 97 && num_visible(100, 4, 0, false) == 100);
static_assert(num_visible(2, 4, 0, true) == 0 && num_visible(2, 4, 2, true) == 1 && num_visible(0, 1, 0, true) == 0);

TEST(Visible, AnExplicitViewReplacesTheRuleAndIsClamped) {
  int32_t const visible_len[] = {5, -3, 1000, 0};
  EXPECT_EQ(num_visible(100, 4, 0, true, visible_len), 5);
  EXPECT_EQ(num_visible(100, 4, 1, true, visible_len), 0);
  EXPECT_EQ(num_visible(100, 4, 2, true, visible_len), 100);
  EXPECT_EQ(num_visible(100, 4, 3, false, visible_len), 0);
  EXPECT_EQ(num_visible(100, 4, 0, true, nullptr), 97);
}

}  // namespace
}  // namespace flashmla::core
