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

TEST(PagePool, ARequestForksAndBothSidesLeave) {
  PagePool pool(4);
  std::vector<int32_t> const parent = pool.allocate(2);
  Fork const child = pool.fork(parent, 100, 64);
  EXPECT_EQ(child.pages, (std::vector<int32_t>{parent[0], 2}));
  ASSERT_EQ(child.copies.size(), 1u);
  EXPECT_EQ(child.copies[0].source, parent[1]);
  EXPECT_EQ(child.copies[0].target, 2);
  EXPECT_EQ(pool.references(parent[0]), 2);
  pool.retain(child.pages);
  pool.free(child.pages);
  pool.free(parent);
  EXPECT_EQ(pool.num_free(), 2);
  pool.free(child.pages);
  EXPECT_EQ(pool.num_free(), 4);
}

TEST(PagePool, AForkOfWholePagesCopiesNothing) {
  PagePool pool(4);
  std::vector<int32_t> const parent = pool.allocate(3);
  Fork const child = pool.fork(parent, 128, 64);
  EXPECT_EQ(child.pages, (std::vector<int32_t>{parent[0], parent[1]})) << "a page that holds none of the tokens is not shared";
  EXPECT_TRUE(child.copies.empty());
  EXPECT_TRUE(pool.fork(parent, 0, 64).pages.empty());
}

TEST(PagePool, AForkNeedsThePagesOfItsTokens) {
  PagePool pool(4);
  std::vector<int32_t> const parent = pool.allocate(2);
  try {
    (void)pool.fork(parent, 129, 64);
    FAIL() << "three pages of two";
  } catch (Error const& error) {
    EXPECT_EQ(error.status(), FLASHMLA_INVALID_ARGUMENT);
    EXPECT_EQ(std::string(error.what()), "page_pool_fork: page_ids: got 2, expected at least 3 (the pages of 129 tokens)");
  }
  EXPECT_THROW((void)pool.fork(parent, -1, 64), Error);
  EXPECT_THROW((void)pool.fork(parent, 1, 0), Error);
  EXPECT_THROW((void)pool.fork(parent, INT64_MAX, 1), Error);
}

TEST(PagePool, NullsAreRefused) {
  int32_t page = -7;
  flashmla_page_pool* pool = nullptr;
  EXPECT_EQ(flashmla_page_pool_create(4, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_create(0, &pool), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(pool, nullptr);
  EXPECT_EQ(flashmla_page_pool_allocate(nullptr, 1, &page), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_free(nullptr, 1, &page), FLASHMLA_INVALID_ARGUMENT);
  flashmla_page_copy copy{-7, -7};
  EXPECT_EQ(flashmla_page_pool_retain(nullptr, 1, &page), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_page_pool_fork(nullptr, 1, 1, &page, &page, &copy), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(copy.source, -7);
  EXPECT_EQ(flashmla_page_pool_references(nullptr, 0), 0);
  EXPECT_EQ(flashmla_page_pool_num_free(nullptr), 0);
  EXPECT_EQ(flashmla_page_pool_num_pages(nullptr), 0);
  flashmla_page_pool_destroy(nullptr);
  EXPECT_EQ(page, -7);
}

}  // namespace
}  // namespace flashmla
