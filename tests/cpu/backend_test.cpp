// What the backend says of itself, and what it refuses.
#include "cpu/backend.hpp"

#include "core/error.hpp"
#include "core/schedule.hpp"
#include "cpu/decode_fixture.hpp"
#include "cpu/system.hpp"

namespace flashmla::cpu::test {
namespace {

void expect_unsupported(core::Problem const& problem, std::string const& argument) {
  try {
    static_cast<void>(make_backend()->make_plan(problem, {}));
    ADD_FAILURE() << argument << " was accepted";
  } catch (core::Error const& error) {
    EXPECT_EQ(error.status(), FLASHMLA_UNSUPPORTED);
    EXPECT_EQ(std::string(error.what()).rfind("plan_create: " + argument + ": got ", 0), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find(", expected "), std::string::npos) << error.what();
  }
}

TEST(Backend, ListsOneUsableDevice) {
  std::unique_ptr<core::Backend> const backend = make_backend();
  EXPECT_EQ(backend->kind(), FLASHMLA_CPU);
  std::vector<core::DeviceRow> const devices = backend->devices();
  ASSERT_EQ(devices.size(), 1u);
  EXPECT_TRUE(devices[0].usable);
  EXPECT_EQ(devices[0].num_units, usable_cores());
  EXPECT_GE(devices[0].capability, FLASHMLA_ISA_PORTABLE);
  EXPECT_EQ(backend->kernels().size(), 7u);
}

TEST(Backend, RefusesWhatIsNotBuiltByName) {
  core::Problem const good = problem_of({});
  core::Problem problem = good;
  problem.format = core::find_kv_format(FLASHMLA_KV_FP8_V32_656);
  expect_unsupported(problem, "kv_format");
  problem = good;
  problem.topk = 64;
  expect_unsupported(problem, "topk");
  problem = good;
  problem.extra_format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  expect_unsupported(problem, "extra_kv_format");
}

TEST(Backend, PlansDescribeThemselves) {
  core::Target target;
  target.isa = FLASHMLA_ISA_PORTABLE;
  target.num_threads = 3;
  std::unique_ptr<core::DecodePlan> const plan = make_backend()->make_plan(problem_of({}), target);
  EXPECT_NE(plan->describe().find("cpu.decode.portable"), std::string::npos);
  EXPECT_NE(plan->describe().find("3 threads"), std::string::npos);
  EXPECT_EQ(plan->shape().max_workers, 3);
  EXPECT_GE(plan->schedule_bytes(), core::schedule_bytes(3));
}

TEST(Backend, ThreadsDefaultToTheCoresOfTheProcess) {
  EXPECT_EQ(make_backend()->make_plan(problem_of({}), {})->shape().max_workers, usable_cores());
}

}  // namespace
}  // namespace flashmla::cpu::test
