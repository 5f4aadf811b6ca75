#include "core/page_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "core/expect_error.hpp"

namespace flashmla::core {
namespace {

std::vector<int32_t> take(PagePool& pool, int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count), -7);
  pool.allocate(count, ids.data());
  return ids;
}

TEST(PagePool, AFreshPoolHandsOutIdsInOrder) {
  PagePool pool(5);
  EXPECT_EQ(take(pool, 3), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.num_pages(), 5);
}

TEST(PagePool, ExhaustionLeavesThePoolAndTheArrayAsTheyWere) {
  PagePool pool(4);
  take(pool, 3);
  std::vector<int32_t> ids(2, -7);
  expect_error({FLASHMLA_EXHAUSTED, "page_pool_allocate", "count", "got 2, expected at most 1"}, [&] { pool.allocate(2, ids.data()); });
  EXPECT_EQ(ids, (std::vector<int32_t>{-7, -7}));
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(take(pool, 1), (std::vector<int32_t>{3}));
}

TEST(PagePool, AWrongFreeChangesNothing) {
  PagePool pool(4);
  take(pool, 3);
  auto const refuse = [&](std::vector<int32_t> const& ids, char const* argument, char const* fragment) {
    expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_free", argument, fragment},
                 [&] { pool.free(static_cast<int64_t>(ids.size()), ids.data()); });
    EXPECT_EQ(pool.num_free(), 1);
  };
  refuse({0, 1, 0}, "page_ids[2]", "named twice");
  refuse({0, 3}, "page_ids[1]", "free already");
  refuse({-1}, "page_ids[0]", "[0, 4)");
  refuse({2, 4}, "page_ids[1]", "[0, 4)");
  std::vector<int32_t> const all{2, 0, 1};
  pool.free(3, all.data());
  EXPECT_EQ(pool.num_free(), 4);
}

TEST(PagePool, BadArguments) {
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_create", "num_pages", "got 0"}, [] { PagePool pool(0); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_create", "num_pages", "got -1"}, [] { PagePool pool(-1); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_create", "num_pages", "int32"}, [] { PagePool pool(int64_t{1} << 31); });
  PagePool pool(3);
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_allocate", "count", "got -1"}, [&] { pool.allocate(-1, nullptr); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_allocate", "page_ids", "got null"}, [&] { pool.allocate(1, nullptr); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_free", "count", "got -2"}, [&] { pool.free(-2, nullptr); });
  pool.allocate(0, nullptr);
  pool.free(0, nullptr);
  EXPECT_EQ(pool.num_free(), 3);
}

TEST(PagePool, NothingIsLostOrHandedOutTwice) {
  constexpr int64_t kPages = 500;
  PagePool pool(kPages);
  std::mt19937 random(1);
  std::vector<std::vector<int32_t>> held;
  std::set<int32_t> in_use;
  for (int step = 0; step < 5000; ++step) {
    int64_t const count = static_cast<int64_t>(random() % 20);
    if (random() % 2 && count <= pool.num_free()) {
      held.push_back(take(pool, count));
      for (int32_t id : held.back()) ASSERT_TRUE(id >= 0 && id < kPages && in_use.insert(id).second);
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      std::shuffle(held.back().begin(), held.back().end(), random);
      pool.free(static_cast<int64_t>(held.back().size()), held.back().data());
      for (int32_t id : held.back()) in_use.erase(id);
      held.pop_back();
    }
    ASSERT_EQ(pool.num_free() + static_cast<int64_t>(in_use.size()), kPages);
  }
}

TEST(PagePool, ThreadsShareIt) {
  PagePool pool(64);
  std::atomic<int> exhausted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        try {
          std::vector<int32_t> const ids = take(pool, 1 + i % 32);
          pool.free(static_cast<int64_t>(ids.size()), ids.data());
        } catch (Error const& error) {
          if (error.status() == FLASHMLA_EXHAUSTED) ++exhausted;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.num_free(), 64);
  std::vector<int32_t> all = take(pool, 64);
  std::sort(all.begin(), all.end());
  std::vector<int32_t> expected(64);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
}

}  // namespace
}  // namespace flashmla::core
