#include "cpu/thread_pool.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <numeric>

namespace flashmla::cpu {
namespace {

TEST(ThreadPool, CallsEveryIndexOnce) {
  for (int32_t const threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int32_t const count : {0, 1, 2, 7, 1000}) {
      std::vector<int32_t> calls(static_cast<size_t>(count), 0);
      pool.run(count, [&](int32_t i) { ++calls[static_cast<size_t>(i)]; });
      EXPECT_EQ(calls, std::vector<int32_t>(static_cast<size_t>(count), 1)) << threads << " threads";
    }
  }
}

TEST(ThreadPool, WritesAreVisibleToTheCaller) {
  ThreadPool pool(3);
  std::vector<int64_t> squares(64);
  for (int64_t round = 0; round < 2000; ++round) {
    pool.run(64, [&](int32_t i) { squares[static_cast<size_t>(i)] = round * i; });
    ASSERT_EQ(std::accumulate(squares.begin(), squares.end(), int64_t{0}), round * 63 * 32);
  }
}

TEST(ThreadPool, WorksAfterIdle) {
  ThreadPool pool(4);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // beyond the spin: the threads sleep
    std::atomic<int32_t> sum{0};
    pool.run(100, [&](int32_t i) { sum += i; });
    EXPECT_EQ(sum, 4950);
  }
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4, 0);
  for (size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 300; ++round) {
        std::atomic<int64_t> sum{0};
        pool.run(17, [&](int32_t i) { sum += i; });
        sums[c] += sum;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sums, std::vector<int64_t>(4, 300 * 136));
}

TEST(ThreadPool, SharedBySizeWhileSomebodyHoldsIt) {
  std::shared_ptr<ThreadPool> const a = ThreadPool::shared(3), b = ThreadPool::shared(3), c = ThreadPool::shared(2);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_EQ(c->size(), 2);
}

TEST(ThreadPool, RunsInlineInAFork) {
  ThreadPool pool(3);
  pool.run(10, [](int32_t) {});
  pid_t const child = fork();
  if (child == 0) {
    int32_t sum = 0;  // not atomic: one thread
    pool.run(10, [&](int32_t i) { sum += i; });
    _exit(sum == 45 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace flashmla::cpu
