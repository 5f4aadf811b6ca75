#include <gtest/gtest.h>

#include <flashmla/page_pool.hpp>
#include <string>
#include <utility>

namespace flashmla {
namespace {

TEST(PagePool, PagesGoAndComeBack) {
  PagePool pool(4);
  std::vector<int32_t> const pages = pool.allocate(3);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_pages(), 4);
  PagePool moved = std::move(pool);
  moved.free(pages);
  EXPECT_EQ(moved.num_free(), 4);
}

TEST(PagePool, ErrorsCarryTheirStatus) {
  PagePool pool(2);
  try {
    (void)pool.allocate(3);
    FAIL() << "three pages of two";
  } catch (Error const& error) {
    EXPECT_EQ(error.status(), FLASHMLA_EXHAUSTED);
    EXPECT_EQ(std::string(error.what()), "page_pool_allocate: count: got 3, expected at most 2 (free pages of 2)");
  }
  EXPECT_THROW(pool.free({0}), Error);
  EXPECT_THROW((void)pool.allocate(-1), Error);
  EXPECT_THROW(PagePool(0), Error);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(PagePool, NullsAreRefused) {
  int32_t page = -7;
  flashmla_page_pool* pool = nullptr;
  EXPECT_EQ(flashmla_page_pool_create(4, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_create(0, &pool), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(pool, nullptr);
  EXPECT_EQ(flashmla_page_pool_allocate(nullptr, 1, &page), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_free(nullptr, 1, &page), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_num_free(nullptr), 0);
  EXPECT_EQ(flashmla_page_pool_num_pages(nullptr), 0);
  flashmla_page_pool_destroy(nullptr);
  EXPECT_EQ(page, -7);
}

}  // namespace
}  // namespace flashmla
