// Plans through the C and C++ API on the CPU: life cycle, errors, and that a failed call changes nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <flashmla/flashmla.hpp>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace flashmla {
namespace {

constexpr int64_t kBatch = 3, kHeads = 4, kPages = 8, kPageTokens = 16, kTablePages = 4;
constexpr uint16_t kOne = 0x3f80, kTwo = 0x4000;  // in BF16

Problem small_problem() {
  Problem problem = Problem::decode(kHeads, kKvBf16_576, kBatch);
  problem.page_tokens = kPageTokens;
  return problem;
}

Target two_threads() {
  Target target(kCpu);
  target.num_threads = 2;
  return target;
}

/// Everything that a run needs: a cache of ones, pages 0 .. 2 for requests 0 .. 2, lengths 16, 5 and 0.
struct Step {
  DecodePlan plan = DecodePlan::make(small_problem(), two_threads());
  std::vector<uint16_t> q, cache, out;
  std::vector<int32_t> table, kv_len{16, 5, 0};
  std::vector<float> lse;
  HostBuffer schedule{plan.schedule_bytes()}, workspace{plan.workspace_bytes()};
  DecodeArgs args;

  Step()
      : q(kBatch * kHeads * 576, 0),
        cache(kPages * kPageTokens * 576, kOne),
        out(kBatch * kHeads * 512, 7),
        table(kBatch * kTablePages, -1),
        lse(kBatch * kHeads, 7) {
    for (int64_t r = 0; r < kBatch; ++r) table[static_cast<size_t>(r * kTablePages)] = static_cast<int32_t>(r);
    args.q = View::contiguous(q.data(), kBf16, kCpu, {kBatch, 1, kHeads, 576});
    args.cache = View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 1, 576});
    args.page_table = View::contiguous(table.data(), kInt32, kCpu, {kBatch, kTablePages});
    args.lengths = Lengths(View::contiguous(kv_len.data(), kInt32, kCpu, {kBatch}));
    args.out = View::contiguous(out.data(), kBf16, kCpu, {kBatch, 1, kHeads, 512});
    args.lse = View::contiguous(lse.data(), kFp32, kCpu, {kBatch, kHeads, 1});
    plan.reset(workspace.view());
  }
  void update() { plan.update(Lengths(args_kv_len()), schedule.view()); }
  void run() { plan.run(args, schedule.view(), workspace.view()); }
  [[nodiscard]] View args_kv_len() const { return View::contiguous(kv_len.data(), kInt32, kCpu, {kBatch}); }
};

TEST(Plan, DecodesAStep) {
  Step step;
  step.update();
  step.run();
  EXPECT_EQ(step.out.front(), kOne);
  EXPECT_EQ(step.out[1 * kHeads * 512], kOne);
  EXPECT_EQ(step.out.back(), 0);  // no token: 0, and lse +inf
  EXPECT_NEAR(step.lse[0], std::log(16.0), 1e-5);
  EXPECT_NEAR(step.lse[kHeads], std::log(5.0), 1e-5);
  EXPECT_EQ(step.lse.back(), INFINITY);
  EXPECT_FALSE(step.plan.fault(step.workspace.view()).has_value());
}

TEST(Plan, AFaultIsReportedOnceAndCleared) {
  Step step;
  step.table[kTablePages] = 1000;
  step.update();
  step.run();
  auto const fault = step.plan.fault(step.workspace.view());
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->code, FLASHMLA_FAULT_PAGE_ID);
  EXPECT_EQ(fault->request, 1);
  EXPECT_EQ(fault->position, 0);
  EXPECT_EQ(fault->value, 1000);
  EXPECT_FALSE(step.plan.fault(step.workspace.view()).has_value());
}

TEST(Plan, AScheduleThatWasNeverMadeIsAFault) {
  Step step;
  step.run();
  auto const fault = step.plan.fault(step.workspace.view());
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->code, FLASHMLA_FAULT_SCHEDULE_MISMATCH);
}

TEST(Plan, AFailedRunChangesNothing) {
  Step step;
  step.update();
  std::vector<uint16_t> const out = step.out;
  std::vector<float> const lse = step.lse;
  step.args.page_table.size[0] = 2;
  EXPECT_THROW(step.run(), Error);
  EXPECT_EQ(step.out, out);
  EXPECT_EQ(step.lse, lse);
  EXPECT_FALSE(step.plan.fault(step.workspace.view()).has_value());
}

TEST(Plan, AnEmptyBatchIsANoOp) {
  Step step;
  Lengths const none(View::contiguous(nullptr, kInt32, kCpu, {0}));
  step.plan.update(none, step.schedule.view());
  step.args.lengths = none;
  step.args.q = View::contiguous(nullptr, kBf16, kCpu, {0, 1, kHeads, 576});
  step.args.page_table = View::contiguous(nullptr, kInt32, kCpu, {0, kTablePages});
  step.args.out = View::contiguous(nullptr, kBf16, kCpu, {0, 1, kHeads, 512});
  step.args.lse = View();
  EXPECT_NO_THROW(step.run());
  EXPECT_FALSE(step.plan.fault(step.workspace.view()).has_value());
}

TEST(Plan, BuffersAreChecked) {
  Step step;
  step.update();
  size_t const schedule_bytes = step.plan.schedule_bytes(), workspace_bytes = step.plan.workspace_bytes();
  View const short_schedule = View::bytes(step.schedule.data(), schedule_bytes - 1, kCpu);
  View const short_workspace = View::bytes(step.workspace.data(), workspace_bytes - 1, kCpu);
  EXPECT_THROW(step.plan.run(step.args, short_schedule, step.workspace.view()), Error);
  EXPECT_THROW(step.plan.run(step.args, step.schedule.view(), short_workspace), Error);
  EXPECT_THROW(step.plan.run(step.args, step.schedule.view(), step.schedule.view()), Error);
  EXPECT_THROW(step.plan.update(Lengths(step.args_kv_len()), short_schedule), Error);
  EXPECT_THROW(step.plan.reset(short_workspace), Error);
  EXPECT_THROW((void)step.plan.fault(short_workspace), Error);
  EXPECT_THROW(step.plan.reset(View()), Error);
}

TEST(Plan, ManyThreadsShareOne) {
  Step shared;
  shared.update();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::vector<uint16_t> out(shared.out.size());
      std::vector<uint16_t> const cache(shared.cache.size(), t % 2 ? kOne : kTwo);
      HostBuffer const workspace(shared.plan.workspace_bytes());
      DecodeArgs args = shared.args;
      args.cache = View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 1, 576});
      args.out = View::contiguous(out.data(), kBf16, kCpu, {kBatch, 1, kHeads, 512});
      args.lse = View();
      shared.plan.reset(workspace.view());
      for (int i = 0; i < 50; ++i) {
        out.assign(out.size(), 7);
        shared.plan.run(args, shared.schedule.view(), workspace.view());
        if (out.front() != (t % 2 ? kOne : kTwo) || out.back() != 0) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Plan, PartsAreThoseOfTheSchedule) {
  DecodePlan const plan = DecodePlan::make(small_problem(), two_threads());
  std::vector<int32_t> const kv_len = {10000, 0, 70};
  int64_t tokens = 0;
  for (Part const& part : plan.parts(kv_len)) {
    EXPECT_LT(part.worker, 2);
    EXPECT_LT(part.split, part.num_splits);
    tokens += part.last_token - part.first_token;
  }
  EXPECT_EQ(tokens, 10070);
  EXPECT_TRUE(plan.parts({}).empty());
  EXPECT_THROW((void)plan.parts({1, 2, 3, 4}), Error);
  EXPECT_THROW((void)plan.parts({-1}), Error);
  EXPECT_THROW((void)plan.parts({1}, 2), Error);
}

TEST(Plan, PartsOfRaggedQueries) {
  Problem problem = small_problem();
  problem.max_q_tokens = 600;
  DecodePlan const plan = DecodePlan::make(problem, two_threads());
  std::vector<int32_t> const kv_len = {10000, 50, 70}, q_offsets = {7, 8, 8, 608};
  std::map<int32_t, int64_t> tokens, row_tiles;  // of each request
  for (Part const& part : plan.parts(kv_len, q_offsets)) {
    tokens[part.request] += part.last_token - part.first_token;
    row_tiles[part.request] = std::max<int64_t>(row_tiles[part.request], part.row_tile + 1);
  }
  EXPECT_EQ(tokens.count(1), 0u) << "a request without a query token has no part";
  EXPECT_EQ(row_tiles[0], 1);
  EXPECT_GT(row_tiles[2], 1);
  EXPECT_EQ(tokens[0], 10000);
  EXPECT_EQ(tokens[2], 70 * row_tiles[2]);
  EXPECT_TRUE(plan.parts(kv_len, {5, 5, 5, 5}).empty());
  EXPECT_THROW((void)plan.parts(kv_len, {0, 1, 2}), Error) << "batch + 1 offsets";
  EXPECT_THROW((void)plan.parts(kv_len, {0, 2, 1, 3}), Error) << "falling";
  EXPECT_THROW((void)plan.parts(kv_len, {0, 601, 601, 601}), Error) << "more than max_q_tokens";
  EXPECT_THROW((void)plan.parts(kv_len, {-1, 0, 0, 0}), Error);
}

TEST(Plan, PartsTellHowManyTheyAre) {
  DecodePlan const plan = DecodePlan::make(small_problem(), two_threads());
  int32_t const kv_len[] = {10000, 0, 70};
  int64_t count = 1;
  Part one{};
  EXPECT_EQ(flashmla_plan_parts(plan.handle(), kv_len, 3, 0, &one, &count), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_GE(count, 3);
  EXPECT_EQ(flashmla_plan_parts(plan.handle(), kv_len, 3, 0, nullptr, &count), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_parts(plan.handle(), nullptr, 3, 0, &one, &count), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_parts(plan.handle(), kv_len, 3, 0, &one, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_parts(nullptr, kv_len, 3, 0, &one, &count), FLASHMLA_INVALID_ARGUMENT);
}

TEST(Plan, DescribesItself) {
  DecodePlan const plan = DecodePlan::make(small_problem(), two_threads());
  std::string const text = plan.describe();
  EXPECT_NE(text.find("2 threads"), std::string::npos) << text;
  char cut[8];
  EXPECT_EQ(flashmla_plan_describe(plan.handle(), cut, sizeof cut), text.size() + 1);
  EXPECT_EQ(std::string(cut), text.substr(0, sizeof cut - 1));
  EXPECT_EQ(flashmla_plan_describe(nullptr, cut, sizeof cut), 0u);
}

TEST(Plan, AFailedCreationLeavesTheHandle) {
  flashmla_plan* plan = reinterpret_cast<flashmla_plan*>(uintptr_t{0x10});
  Problem problem = small_problem();
  Target const target = two_threads();
  problem.h_q = 0;
  EXPECT_EQ(flashmla_plan_create(&problem, &target, &plan), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(plan, reinterpret_cast<flashmla_plan*>(uintptr_t{0x10}));
  EXPECT_STREQ(flashmla_last_error(), "plan_create: h_q: got 0, expected at least 1 (query heads; required)");
  EXPECT_EQ(flashmla_plan_create(nullptr, &target, &plan), FLASHMLA_INVALID_ARGUMENT);
  problem = small_problem();
  EXPECT_EQ(flashmla_plan_create(&problem, nullptr, &plan), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_create(&problem, &target, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(plan, reinterpret_cast<flashmla_plan*>(uintptr_t{0x10}));
}

TEST(Plan, AnExecutorIsCheckedFieldByField) {
  auto const answer = [](flashmla_executor const& executor, Target target) {
    Problem const problem = small_problem();
    target.executor = &executor;
    flashmla_plan* plan = nullptr;
    flashmla_status const status = flashmla_plan_create(&problem, &target, &plan);
    EXPECT_EQ(plan, nullptr);
    return std::pair(status, std::string(flashmla_last_error()));
  };
  auto const inline_loop = [](int32_t count, auto const& task) {
    for (int32_t i = 0; i < count; ++i) task(i);
  };
  flashmla_executor const good = executor_of(inline_loop);
  flashmla_executor bad = good;
  bad.struct_size = 0;
  EXPECT_EQ(answer(bad, two_threads()),
            std::pair(FLASHMLA_INVALID_ARGUMENT,
                      std::string("plan_create: struct_size: got 0, expected 24 (sizeof(flashmla_executor); is the field set?)")));
  bad = good;
  bad.flags = 1;
  EXPECT_EQ(answer(bad, two_threads()),
            std::pair(FLASHMLA_INVALID_ARGUMENT, std::string("plan_create: executor.flags: got 1, expected 0 (unknown flag 1)")));
  bad = good;
  bad.parallel_for = nullptr;
  EXPECT_EQ(
      answer(bad, two_threads()),
      std::pair(FLASHMLA_INVALID_ARGUMENT, std::string("plan_create: executor.parallel_for: got null, expected a flashmla_parallel_for")));
  EXPECT_EQ(answer(good, Target(cuda_device(0))),
            std::pair(FLASHMLA_INVALID_ARGUMENT, std::string("plan_create: executor: got one, expected none (threads are the CPU's)")));
}

TEST(Plan, NullHandlesAreRefused) {
  Step step;
  View const schedule = step.schedule.view(), workspace = step.workspace.view();
  Fault fault{};
  flashmla_plan const* const plan = step.plan.handle();
  EXPECT_EQ(flashmla_plan_schedule_bytes(nullptr), 0u);
  EXPECT_EQ(flashmla_plan_workspace_bytes(nullptr), 0u);
  EXPECT_EQ(flashmla_plan_update(nullptr, &step.args.lengths, &schedule, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_update(plan, nullptr, &schedule, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_update(plan, &step.args.lengths, nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_reset(nullptr, &workspace, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_reset(plan, nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_run(nullptr, &step.args, &schedule, &workspace, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_run(plan, nullptr, &schedule, &workspace, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_run(plan, &step.args, nullptr, &workspace, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_run(plan, &step.args, &schedule, nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_fault(nullptr, &workspace, nullptr, &fault), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_plan_fault(plan, &workspace, nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  flashmla_plan_destroy(nullptr);
}

TEST(Plan, ADeviceThatIsNotThereIsUnsupported) {
  flashmla_plan* plan = nullptr;
  Problem const problem = small_problem();
  Target const target(cuda_device(1000));
  EXPECT_EQ(flashmla_plan_create(&problem, &target, &plan), FLASHMLA_UNSUPPORTED) << flashmla_last_error();
  EXPECT_EQ(plan, nullptr);
  if (!FLASHMLA_WITH_CUDA) {
    EXPECT_STREQ(flashmla_last_error(), "plan_create: device: got cuda:1000, expected cpu (this library was built without CUDA)");
  }
}

TEST(Plan, MovesLikeAUniquePointer) {
  DecodePlan plan = DecodePlan::make(small_problem(), two_threads());
  size_t const bytes = plan.workspace_bytes();
  DecodePlan const other = std::move(plan);
  EXPECT_EQ(other.workspace_bytes(), bytes);
}

}  // namespace
}  // namespace flashmla
