#include "core/page_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <set>
#include <string>
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
  refuse({0, 1, 0}, "page_ids[2]", "named more often than it has references");
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
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_retain", "count", "got -3"}, [&] { pool.retain(-3, nullptr); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_retain", "page_ids", "got null"}, [&] { pool.retain(1, nullptr); });
  pool.allocate(0, nullptr);
  pool.retain(0, nullptr);
  pool.free(0, nullptr);
  EXPECT_EQ(pool.num_free(), 3);
}

TEST(PagePool, APageIsFreeWhenItsLastReferenceGoes) {
  PagePool pool(4);
  std::vector<int32_t> const ids = take(pool, 2);
  pool.retain(2, ids.data());
  pool.retain(1, ids.data());
  EXPECT_EQ(pool.references(ids[0]), 3);
  EXPECT_EQ(pool.references(ids[1]), 2);
  pool.free(2, ids.data());
  EXPECT_EQ(pool.num_free(), 2);
  std::vector<int32_t> const twice{ids[0], ids[0], ids[1]};
  pool.free(3, twice.data());
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.references(ids[0]), 0);
  for (int32_t const id : {-1, 4}) EXPECT_EQ(pool.references(id), 0);
}

TEST(PagePool, AWrongRetainChangesNothing) {
  PagePool pool(4);
  take(pool, 2);
  std::vector<int32_t> const free_page{0, 1, 2}, beyond{0, 1, 4};
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_retain", "page_ids[2]", "got 2, expected a page in use"},
               [&] { pool.retain(3, free_page.data()); });
  expect_error({FLASHMLA_INVALID_ARGUMENT, "page_pool_retain", "page_ids[2]", "got 4, expected an id in [0, 4)"},
               [&] { pool.retain(3, beyond.data()); });
  EXPECT_EQ(pool.references(0), 1);
  EXPECT_EQ(pool.references(1), 1);
}

TEST(PagePool, AForkSharesFullPagesAndAsksForACopyOfALastPageThatIsNot) {
  PagePool pool(5);
  std::vector<int32_t> const ids = take(pool, 3);
  std::vector<int32_t> forked(3, -7);
  flashmla_page_copy const copy = pool.fork(130, 64, ids.data(), forked.data());
  EXPECT_EQ(copy.source, ids[2]);
  EXPECT_EQ(copy.target, 3);
  EXPECT_EQ(forked, (std::vector<int32_t>{ids[0], ids[1], 3}));
  EXPECT_EQ(pool.references(ids[0]), 2);
  EXPECT_EQ(pool.references(ids[2]), 1);
  EXPECT_EQ(pool.references(3), 1);
  EXPECT_EQ(pool.num_free(), 1);

  flashmla_page_copy const none = pool.fork(128, 64, ids.data(), forked.data());
  EXPECT_EQ(none.source, -1);
  EXPECT_EQ(none.target, -1);
  EXPECT_EQ(forked, (std::vector<int32_t>{ids[0], ids[1], 3})) << "only the pages of the tokens are written";
  EXPECT_EQ(pool.references(ids[1]), 3);
  EXPECT_EQ(pool.fork(0, 64, nullptr, nullptr).target, -1);
}

TEST(PagePool, AForkThatFailsChangesNothing) {
  PagePool pool(3);
  std::vector<int32_t> const ids = take(pool, 2);
  std::vector<int32_t> forked(3, -7);
  auto const refuse = [&](Complaint const& complaint, int64_t tokens, int64_t page_tokens, std::vector<int32_t> const& pages) {
    expect_error(complaint, [&] { pool.fork(tokens, page_tokens, pages.empty() ? nullptr : pages.data(), forked.data()); });
    EXPECT_EQ(forked, (std::vector<int32_t>(3, -7)));
    for (int32_t const id : ids) EXPECT_EQ(pool.references(id), 1);
  };
  constexpr flashmla_status kInvalid = FLASHMLA_INVALID_ARGUMENT;
  refuse({kInvalid, "page_pool_fork", "tokens", "got -1"}, -1, 64, ids);
  refuse({kInvalid, "page_pool_fork", "page_tokens", "got 0"}, 1, 0, ids);
  refuse({kInvalid, "page_pool_fork", "page_ids", "got null"}, 1, 64, {});
  refuse({kInvalid, "page_pool_fork", "page_ids[1]", "got 2, expected a page in use"}, 100, 64, {0, 2});
  refuse({kInvalid, "page_pool_fork", "page_ids[1]", "got 3, expected an id in [0, 3)"}, 100, 64, {0, 3});
  expect_error({kInvalid, "page_pool_fork", "forked_ids", "got null"}, [&] { pool.fork(1, 64, ids.data(), nullptr); });
  take(pool, 1);
  refuse({FLASHMLA_EXHAUSTED, "page_pool_fork", "tokens", "got 65, which take 1 new page, expected at most 0 (free pages of 3)"}, 65, 64,
         ids);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_NO_THROW(pool.fork(128, 64, ids.data(), forked.data())) << "full pages need no new one";
}

/// A step of an engine that forks, allocates and runs dry in the middle: what it took goes back, and the pool is as before.
TEST(PagePool, ExhaustionInMidStepLeavesAUsablePool) {
  constexpr int64_t kTokens = 100, kPageTokens = 16, kPages = 20;
  PagePool pool(kPages);
  std::vector<int32_t> const parent = take(pool, 7);
  for (int64_t in_reserve = 0; in_reserve < kPages - 7; ++in_reserve) {
    std::vector<int32_t> const others = take(pool, kPages - 7 - in_reserve);
    std::vector<std::vector<int32_t>> taken;
    bool exhausted = false;
    while (!exhausted) {
      std::vector<int32_t> child(7);
      try {
        pool.fork(kTokens, kPageTokens, parent.data(), child.data());
        taken.push_back(child);
        taken.push_back(take(pool, 2));
      } catch (Error const& error) {
        EXPECT_EQ(error.status(), FLASHMLA_EXHAUSTED);
        exhausted = true;
      }
    }
    EXPECT_EQ(static_cast<int64_t>(taken.size()), in_reserve / 3 * 2 + (in_reserve % 3 > 0 ? 1 : 0));
    for (std::vector<int32_t> const& ids : taken) pool.free(static_cast<int64_t>(ids.size()), ids.data());
    EXPECT_EQ(pool.num_free(), in_reserve);
    for (int32_t const id : parent) EXPECT_EQ(pool.references(id), 1);
    EXPECT_EQ(static_cast<int64_t>(take(pool, in_reserve).size()), in_reserve) << "what is free can still be had";
    std::vector<int32_t> all(kPages);
    std::iota(all.begin(), all.end(), 0);
    std::erase_if(all, [&](int32_t id) { return std::find(parent.begin(), parent.end(), id) != parent.end(); });
    pool.free(static_cast<int64_t>(all.size()), all.data());
  }
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

/// The pool as a plain array of counts, and the holders that an engine would have: each a list of pages, every page of which
/// is one reference.
class Model {
 public:
  explicit Model(int64_t num_pages, uint32_t seed) : pool_(num_pages), counts_(static_cast<size_t>(num_pages)), random_(seed) {}

  void step() {
    constexpr size_t kMostHolders = 10;  // more would keep the pool empty
    if (holders_.size() > kMostHolders) return free();
    switch (below(9)) {
      case 0:
      case 1:
        return allocate();
      case 2:
      case 3:
        return fork();
      case 4:
        return retain();
      case 5:
      case 6:
      case 7:
        return free();
      default:
        return do_wrong();
    }
  }

  void compare_all() const {
    for (size_t id = 0; id < counts_.size(); ++id) ASSERT_EQ(pool_.references(static_cast<int32_t>(id)), counts_[id]) << "page " << id;
    ASSERT_EQ(pool_.num_free(), num_free());
  }

  void free_all() {
    while (!holders_.empty()) free();
  }

  int64_t exhausted = 0, forked = 0, copied = 0, refused = 0;

 private:
  int64_t below(int64_t count) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(count)); }
  [[nodiscard]] int64_t num_free() const { return std::count(counts_.begin(), counts_.end(), 0); }
  int64_t& count_of(int32_t id) { return counts_[static_cast<size_t>(id)]; }
  std::vector<int32_t> const& any_holder() { return holders_[static_cast<size_t>(below(static_cast<int64_t>(holders_.size())))]; }

  /// `body` must fail for want of pages, and as the model says.
  template <typename Body>
  void expect_exhausted(Body const& body) {
    ++exhausted;
    try {
      body();
      ADD_FAILURE() << "pages from nowhere";
    } catch (Error const& error) {
      ASSERT_EQ(error.status(), FLASHMLA_EXHAUSTED) << error.what();
    }
  }

  void allocate() {
    int64_t const count = below(static_cast<int64_t>(counts_.size()) / 3 + 2);
    std::vector<int32_t> ids(static_cast<size_t>(count), -7);
    if (count > num_free()) return expect_exhausted([&] { pool_.allocate(count, ids.data()); });
    pool_.allocate(count, ids.data());
    for (int32_t const id : ids) ASSERT_EQ(count_of(id)++, 0) << "page " << id << " is not free";
    holders_.push_back(ids);
  }

  void fork() {
    if (holders_.empty()) return;
    std::vector<int32_t> const parent = any_holder();
    int64_t const page_tokens = 1 + below(5), tokens = below(static_cast<int64_t>(parent.size()) * page_tokens + 1);
    int64_t const full = tokens / page_tokens, pages = (tokens + page_tokens - 1) / page_tokens;
    std::vector<int32_t> child(static_cast<size_t>(pages), -7);
    if (full < pages && num_free() == 0) return expect_exhausted([&] { pool_.fork(tokens, page_tokens, parent.data(), child.data()); });
    flashmla_page_copy const copy = pool_.fork(tokens, page_tokens, parent.data(), child.data());
    for (int64_t i = 0; i < full; ++i) {
      ASSERT_EQ(child[static_cast<size_t>(i)], parent[static_cast<size_t>(i)]);
      ++count_of(parent[static_cast<size_t>(i)]);
    }
    ASSERT_EQ(copy.source, full < pages ? parent[static_cast<size_t>(full)] : -1);
    ASSERT_EQ(copy.target, full < pages ? child.back() : -1);
    int64_t const held_before = full < pages ? count_of(child.back())++ : 0;
    ASSERT_EQ(held_before, 0) << "page " << child.back() << " is not free";
    ++forked;
    copied += pages - full;
    holders_.push_back(child);
  }

  void retain() {
    if (holders_.empty()) return;
    std::vector<int32_t> const ids = any_holder();
    pool_.retain(static_cast<int64_t>(ids.size()), ids.data());
    for (int32_t const id : ids) ++count_of(id);
    holders_.push_back(ids);
  }

  void free() {
    if (holders_.empty()) return;
    std::swap(holders_[static_cast<size_t>(below(static_cast<int64_t>(holders_.size())))], holders_.back());
    std::vector<int32_t> ids = holders_.back();
    holders_.pop_back();
    if (!holders_.empty() && below(3) == 0) {  // two holders in one call: an id may be there twice
      ids.insert(ids.end(), holders_.back().begin(), holders_.back().end());
      holders_.pop_back();
    }
    std::shuffle(ids.begin(), ids.end(), random_);
    pool_.free(static_cast<int64_t>(ids.size()), ids.data());
    for (int32_t const id : ids) --count_of(id);
  }

  /// Good ids, then one that is out of range, free or named once too often: nothing may change.
  void do_wrong() {
    std::vector<int32_t> ids = holders_.empty() ? std::vector<int32_t>{} : any_holder();
    bool const to_free = below(2) == 0;
    int32_t const last = static_cast<int32_t>(below(static_cast<int64_t>(counts_.size()) + 2) - 1);
    int64_t const named = std::count(ids.begin(), ids.end(), last);
    bool const is_page = last >= 0 && last < static_cast<int32_t>(counts_.size());
    if (is_page && (to_free ? count_of(last) > named : count_of(last) > 0)) {
      if (!to_free) return;
      ids.insert(ids.end(), static_cast<size_t>(count_of(last) - named), last);
    }
    ids.push_back(last);
    try {
      to_free ? pool_.free(static_cast<int64_t>(ids.size()), ids.data()) : pool_.retain(static_cast<int64_t>(ids.size()), ids.data());
      ADD_FAILURE() << "page " << last << " was taken";
    } catch (Error const& error) {
      ++refused;
      ASSERT_EQ(error.status(), FLASHMLA_INVALID_ARGUMENT);
      std::string const text = error.what(), place = "page_ids[" + std::to_string(ids.size() - 1) + "]: got " + std::to_string(last);
      ASSERT_NE(text.find(place), std::string::npos) << text;
    }
  }

  PagePool pool_;
  std::vector<int64_t> counts_;
  std::vector<std::vector<int32_t>> holders_;
  std::mt19937 random_;
};

TEST(PagePool, AMillionRandomOperationsAgreeWithAPlainModel) {
  constexpr int kOperations = 1'000'000, kTrials = 20;
  int64_t exhausted = 0, forked = 0, copied = 0, refused = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    Model model(1 + trial * 7, static_cast<uint32_t>(trial));
    for (int i = 0; i < kOperations / kTrials; ++i) {
      model.step();
      if (i % 100 == 0) model.compare_all();
      if (testing::Test::HasFailure()) FAIL() << "trial " << trial << ", operation " << i;
    }
    model.compare_all();
    model.free_all();
    model.compare_all();
    exhausted += model.exhausted, forked += model.forked, copied += model.copied, refused += model.refused;
  }
  for (int64_t const happened : {exhausted, forked, copied, refused}) EXPECT_GT(happened, kOperations / 50);
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
