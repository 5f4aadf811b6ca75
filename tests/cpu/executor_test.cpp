// Plans on the caller's threads: the bits of the library's own, whatever the executor leaves undone.
#include "cpu/executor.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <flashmla/executor.hpp>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "cpu/allocations.hpp"
#include "cpu/decode_fixture.hpp"

namespace flashmla::cpu::test {
namespace {

using ParallelFor = std::function<void(int32_t, Task)>;

/// Indices dealt out in turns to so many new threads.
ParallelFor on_threads(int32_t num_threads) {
  return [num_threads](int32_t count, Task task) {
    std::vector<std::thread> threads;
    for (int32_t t = 0; t < num_threads; ++t)
      threads.emplace_back([=] {
        for (int32_t i = t; i < count; i += num_threads) task(i);
      });
    for (std::thread& thread : threads) thread.join();
  };
}

CallSetup setup_of(int32_t threads, bool batch_invariant) {
  CallSetup s;
  s.h_q = 5;
  s.kv_len = {900, 0, 300, 64};
  s.threads = threads;
  s.sink = true;
  s.batch_invariant = batch_invariant;
  return s;
}

void expect_same_bits(DecodeFixture& f, DecodeFixture const& expected) {
  f.update();
  f.run();
  EXPECT_EQ(f.out, expected.out);
  EXPECT_EQ(f.lse, expected.lse);
  EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
}

TEST(Executor, GivesTheBitsOfThePool) {
  for (bool const batch_invariant : {false, true}) {
    for (int32_t const threads : {1, 2, 7}) {
      CallSetup s = setup_of(threads, batch_invariant);
      DecodeFixture pool(s);
      pool.update();
      pool.run();
      pool.expect_correct();
      for (int32_t const own : {1, 2, 7, 16}) {
        ParallelFor parallel_for = on_threads(own);
        s.executor = executor_of(parallel_for);
        DecodeFixture f(s);
        expect_same_bits(f, pool);
      }
    }
  }
}

TEST(Executor, MayDoLessThanItsShareOrOtherIndices) {
  CallSetup s = setup_of(5, false);
  DecodeFixture pool(s);
  pool.update();
  pool.run();
  std::vector<ParallelFor> const careless = {
      [](int32_t, Task) {},                 // has shut down
      [](int32_t, Task task) { task(0); },  // does one
      [](int32_t count, Task task) {
        for (int i = 0; i < count; ++i) task(0);
      },  // the same one
      [](int32_t count, Task task) {
        for (int i = 0; i < 3 * count; ++i) task(i);
      },
      [](int32_t count, Task task) {
        for (int i = count; i-- > 0;) task(i);
      },
  };
  for (size_t i = 0; i < careless.size(); ++i) {
    SCOPED_TRACE(i);
    ParallelFor parallel_for = careless[i];
    s.executor = executor_of(parallel_for);
    DecodeFixture f(s);
    expect_same_bits(f, pool);
  }
}

TEST(Executor, WaitsForTasksThatAreRunningWhenItReturns) {
  std::vector<std::thread> threads;
  std::atomic<int32_t> started{0};
  auto parallel_for = [&](int32_t count, Task task) {
    for (int32_t i = 0; i < count; ++i) threads.emplace_back([task, i] { task(i); });
    while (started < count) std::this_thread::yield();  // all have begun, none has ended
  };
  Executor const early(executor_of(parallel_for), 3);
  std::atomic<int32_t> ended{0};
  early.run(3, [&](int32_t) {
    ++started;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ++ended;
  });
  EXPECT_EQ(ended, 3);
  for (std::thread& thread : threads) thread.join();
}

TEST(Executor, AnExceptionIsAnErrorAfterAllTasksAreDone) {
  std::vector<int32_t> calls(4, 0);
  auto parallel_for = [](int32_t, Task task) {
    task(0);
    throw std::runtime_error("no threads today");
  };
  Executor const executor(executor_of(parallel_for), 4);
  try {
    executor.run(4, [&](int32_t i) { ++calls[static_cast<size_t>(i)]; });
    ADD_FAILURE() << "no error";
  } catch (core::Error const& error) {
    EXPECT_EQ(error.status(), FLASHMLA_INVALID_ARGUMENT);
    EXPECT_NE(std::string(error.what()).find("no threads today"), std::string::npos) << error.what();
  }
  EXPECT_EQ(calls, std::vector<int32_t>(4, 1));
}

TEST(Executor, OneTaskNeedsNoThreads) {
  int32_t asked = 0, called = 0;
  auto parallel_for = [&](int32_t, Task) { ++asked; };
  Executor const executor(executor_of(parallel_for), 1);
  executor.run(0, [&](int32_t) { ++called; });
  executor.run(1, [&](int32_t) { ++called; });
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(called, 1);
}

TEST(Executor, PlansSaySo) {
  CallSetup s = setup_of(3, false);
  ParallelFor parallel_for = on_threads(1);
  s.executor = executor_of(parallel_for);
  EXPECT_NE(DecodeFixture(s).plan->describe().find("3 threads of the caller"), std::string::npos);
}

TEST(Executor, NothingIsAllocatedByACall) {
  for (bool const batch_invariant : {false, true}) {
    for (bool const callers : {false, true}) {
      CallSetup s = setup_of(3, batch_invariant);
      auto in_turn = [](int32_t count, Task task) {
        for (int32_t i = 0; i < count; ++i) task(i);
      };
      if (callers) s.executor = executor_of(in_turn);
      DecodeFixture f(s);
      int64_t const before = num_allocations();
      f.update();
      f.run();
      EXPECT_EQ(num_allocations() - before, 0) << "batch_invariant " << batch_invariant << ", callers " << callers;
    }
  }
}

}  // namespace
}  // namespace flashmla::cpu::test
