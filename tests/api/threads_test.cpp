// What flashmla.h promises to many threads, done by all of them at once: one plan and one schedule shared by runs with a workspace
// each, plans that come and go, stand-alone operations, a page pool, and an error text for each thread. Under ThreadSanitizer this
// shows that none of it races.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <flashmla/flashmla.hpp>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace flashmla {
namespace {

constexpr int64_t kBatch = 3, kHeads = 4, kPages = 24, kPageTokens = 16, kTablePages = 20;
constexpr int kRounds = 25;

Problem small_problem() {
  Problem problem = Problem::decode(kHeads, kKvBf16_576, kBatch);
  problem.page_tokens = kPageTokens;
  return problem;
}
Target threads_of_the_cpu(int32_t num_threads) {
  Target target(kCpu);
  target.num_threads = num_threads;
  return target;
}

/// The inputs of a step, which all threads read. The first request is long enough to be split over the workers.
struct Inputs {
  std::vector<uint16_t> q = std::vector<uint16_t>(kBatch * kHeads * 576), cache = std::vector<uint16_t>(kPages * kPageTokens * 576);
  std::vector<int32_t> table = std::vector<int32_t>(kBatch * kTablePages, 2147480000), kv_len = {300, 40, 0};

  Inputs() {
    uint32_t state = 1;
    for (auto* const numbers : {&q, &cache})
      for (uint16_t& number : *numbers) number = static_cast<uint16_t>(0x3c00 + (state = state * 1664525 + 1013904223) % 0x300);
    for (int32_t i = 0; i < 19; ++i) table[static_cast<size_t>(i)] = i;
    for (int32_t i = 0; i < 3; ++i) table[static_cast<size_t>(kTablePages + i)] = 19 + i;
  }
  [[nodiscard]] Lengths lengths() const { return Lengths(View::contiguous(kv_len.data(), kInt32, kCpu, {kBatch})); }
};

/// A run's own memory.
struct Outputs {
  std::vector<uint16_t> out = std::vector<uint16_t>(kBatch * kHeads * 512);
  std::vector<float> lse = std::vector<float>(kBatch * kHeads);
  HostBuffer workspace;

  explicit Outputs(DecodePlan const& plan) : workspace(plan.workspace_bytes()) { plan.reset(workspace.view()); }
  void run(DecodePlan const& plan, Inputs const& in, HostBuffer const& schedule) {
    DecodeArgs args;
    args.q = View::contiguous(in.q.data(), kBf16, kCpu, {kBatch, 1, kHeads, 576});
    args.cache = View::contiguous(in.cache.data(), kBf16, kCpu, {kPages, kPageTokens, 1, 576});
    args.page_table = View::contiguous(in.table.data(), kInt32, kCpu, {kBatch, kTablePages});
    args.lengths = in.lengths();
    args.out = View::contiguous(out.data(), kBf16, kCpu, {kBatch, 1, kHeads, 512});
    args.lse = View::contiguous(lse.data(), kFp32, kCpu, {kBatch, kHeads, 1});
    plan.run(args, schedule.view(), workspace.view());
  }
};

/// Every job on a thread of its own, all of them let go at once.
void run_at_once(std::vector<std::function<void()>> const& jobs) {
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (auto const& job : jobs)
    threads.emplace_back([&go, &job] {
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      job();
    });
  go.store(true, std::memory_order_release);
  for (std::thread& thread : threads) thread.join();
}

TEST(Threads, OnePlanAndOneScheduleServeManyRuns) {
  Inputs const in;
  DecodePlan const plan = DecodePlan::make(small_problem(), threads_of_the_cpu(3));
  HostBuffer const schedule(plan.schedule_bytes());
  plan.update(in.lengths(), schedule.view());
  Outputs expected(plan);
  expected.run(plan, in, schedule);
  ASSERT_GT(plan.parts(in.kv_len).front().num_splits, 1) << "the partial results of a request have to meet";
  std::atomic<int> wrong{0};
  auto const job = [&] {
    Outputs own(plan);
    for (int i = 0; i < kRounds; ++i) {
      std::fill(own.out.begin(), own.out.end(), uint16_t{0x7fff});
      own.run(plan, in, schedule);
      if (own.out != expected.out || own.lse != expected.lse || plan.fault(own.workspace.view())) ++wrong;
      if (plan.describe().empty() || plan.parts(in.kv_len).empty()) ++wrong;
    }
  };
  run_at_once({job, job, job, job});
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, SchedulesAreMadeWhileOthersRun) {
  Inputs const in;
  DecodePlan const plan = DecodePlan::make(small_problem(), threads_of_the_cpu(2));
  HostBuffer const shared(plan.schedule_bytes());
  plan.update(in.lengths(), shared.view());
  std::atomic<int> wrong{0};
  auto const runs = [&] {
    Outputs own(plan);
    for (int i = 0; i < kRounds; ++i) own.run(plan, in, shared);
  };
  auto const updates = [&] {
    HostBuffer const own(plan.schedule_bytes());
    for (int i = 0; i < kRounds; ++i) plan.update(in.lengths(), own.view());
    if (std::memcmp(own.data(), shared.data(), own.num_bytes()) != 0) ++wrong;
  };
  run_at_once({runs, updates, runs, updates});
  EXPECT_EQ(wrong, 0);
}

/// Plans of one number of threads share those threads, which end with the last plan.
TEST(Threads, PlansComeAndGo) {
  Inputs const in;
  auto const job = [&] {
    for (int i = 0; i < kRounds; ++i) {
      DecodePlan const plan = DecodePlan::make(small_problem(), threads_of_the_cpu(2 + i % 2));
      HostBuffer const schedule(plan.schedule_bytes());
      plan.update(in.lengths(), schedule.view());
      Outputs own(plan);
      own.run(plan, in, schedule);
    }
  };
  run_at_once({job, job, job});
}

TEST(Threads, StandAloneOperationsRunAtOnce) {
  auto const merges = [] {
    constexpr int64_t kTokens = 40;
    std::vector<float> const partial(2 * kTokens * kHeads * 512, 1.0f), partial_lse(2 * kTokens * kHeads, 0.0f);
    std::vector<float> out(kTokens * kHeads * 512);
    MergeArgs args;
    args.partial_out = View::contiguous(partial.data(), kFp32, kCpu, {2, kTokens, kHeads, 512});
    args.partial_lse = View::contiguous(partial_lse.data(), kFp32, kCpu, {2, kTokens, kHeads});
    args.out = View::contiguous(out.data(), kFp32, kCpu, {kTokens, kHeads, 512});
    for (int i = 0; i < kRounds; ++i) merge(args);
  };
  auto const appends = [] {
    constexpr int64_t kTokens = 200;
    std::vector<uint16_t> const kv(kTokens * 576, 1);
    std::vector<uint16_t> cache(kPages * kPageTokens * 576);
    std::vector<int64_t> slots(kTokens);
    for (int64_t i = 0; i < kTokens; ++i) slots[static_cast<size_t>(i)] = i;
    AppendArgs args;
    args.kv_format = kKvBf16_576;
    args.kv = View::contiguous(kv.data(), kBf16, kCpu, {kTokens, 576});
    args.slot_mapping = View::contiguous(slots.data(), kInt64, kCpu, {kTokens});
    args.cache = View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 576});
    std::vector<View> const caches = {View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 576})};
    std::vector<PageCopy> copies;
    for (int32_t page = 0; page < 12; ++page) copies.push_back({page, page + 12});
    for (int i = 0; i < kRounds; ++i) {
      append(args);
      copy_pages(caches, copies);
    }
  };
  run_at_once({merges, appends, merges, appends});
}

TEST(Threads, APoolHandsOutEachPageOnce) {
  PagePool pool(64);
  std::vector<std::atomic<int>> holders(64);
  std::atomic<int> wrong{0};
  auto const job = [&] {
    for (int i = 0; i < 200; ++i) {
      std::vector<int32_t> pages;
      try {
        pages = pool.allocate(1 + i % 7);
      } catch (Error const& error) {
        if (error.status() != FLASHMLA_EXHAUSTED) ++wrong;
        continue;
      }
      for (int32_t const page : pages)
        if (holders[static_cast<size_t>(page)].fetch_add(1) != 0) ++wrong;
      for (int32_t const page : pages) holders[static_cast<size_t>(page)].fetch_sub(1);
      pool.retain(pages);
      pool.free(pages);
      if (pool.references(pages[0]) != 1 || pool.num_free() > 64) ++wrong;
      pool.free(pages);
    }
  };
  run_at_once({job, job, job, job});
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(pool.num_free(), 64);
}

TEST(Threads, EachHasAnErrorOfItsOwn) {
  std::atomic<int> wrong{0};
  auto const job_of = [&](int64_t bad) {
    return [&wrong, bad] {
      for (int i = 0; i < 200; ++i) {
        flashmla_page_pool* pool = nullptr;
        if (flashmla_page_pool_create(bad, &pool) != FLASHMLA_INVALID_ARGUMENT) ++wrong;
        if (std::string(flashmla_last_error()).find("got " + std::to_string(bad) + ",") == std::string::npos) ++wrong;
        if (flashmla_num_devices() < 1 || flashmla_num_kernels() < 1 || build_info().empty()) ++wrong;
        if (std::string(flashmla_last_error()) != "" || devices().empty() || kernels().empty()) ++wrong;
      }
    };
  };
  run_at_once({job_of(0), job_of(-1), job_of(-22), job_of(-333)});
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace flashmla
