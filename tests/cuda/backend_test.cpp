// The backend on any machine: it never fails to be made, says what is missing, and says so again. With a GPU the same
// tests check that rows and reasons agree.
#include "cuda/backend.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.hpp"
#include "core/kv_format.hpp"
#include "cuda/kernel_table.hpp"

namespace flashmla::cuda {
namespace {

core::Problem some_problem() {
  core::Problem problem;
  problem.h_q = 16;
  problem.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  problem.max_batch = 4;
  problem.scale = 0.04F;
  return problem;
}

core::Target device(int32_t index) {
  core::Target target;
  target.device = {FLASHMLA_CUDA, index};
  return target;
}

bool has_usable_device(core::Backend const& backend) {
  for (core::DeviceRow const& row : backend.devices())
    if (row.usable) return true;
  return false;
}

TEST(Driver, saysTheSameTwice) {
  Driver const first = driver(), second = driver();
  EXPECT_EQ(first.found, second.found);
  EXPECT_EQ(first.reason, second.reason);
  EXPECT_GE(first.needed, 12000);
  EXPECT_EQ(first.needed % 1000, 0) << "any driver of the toolkit's major version serves";
  if (first.found < first.needed) {
    EXPECT_FALSE(first.reason.empty());
  }
  if (first.found == 0) {
    EXPECT_NE(first.reason.find("no NVIDIA driver"), std::string::npos) << first.reason;
  }
}

TEST(Backend, rowsHaveReasons) {
  std::unique_ptr<core::Backend> const backend = make_backend();
  EXPECT_EQ(backend->kind(), FLASHMLA_CUDA);
  for (core::DeviceRow const& row : backend->devices()) EXPECT_EQ(row.usable, row.reason.empty()) << row.name;
  std::vector<core::KernelRow> const kernels = backend->kernels();
  ASSERT_EQ(kernels.size(), std::size(kKernels));
  for (core::KernelRow const& row : kernels) {
    EXPECT_EQ(row.usable, row.reason.empty()) << row.name;
    EXPECT_EQ(row.usable, has_usable_device(*backend)) << row.name;
    EXPECT_LT(row.name.size(), sizeof(flashmla_kernel_info::name));
    EXPECT_LT(row.serves.size(), sizeof(flashmla_kernel_info::serves));
    EXPECT_LT(row.reason.size(), sizeof(flashmla_kernel_info::reason));
  }
}

TEST(Backend, noDeviceIsUnsupported) {
  std::unique_ptr<core::Backend> const backend = make_backend();
  if (has_usable_device(*backend)) GTEST_SKIP() << "this machine has a Hopper GPU";
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      static_cast<void>(backend->make_plan(some_problem(), device(0)));
      ADD_FAILURE() << "made a plan without a GPU";
    } catch (core::Error const& error) {
      EXPECT_EQ(error.status(), FLASHMLA_UNSUPPORTED);
      EXPECT_EQ(std::string(error.what()).rfind("plan_create: device: got cuda:0", 0), 0U) << error.what();
      EXPECT_NE(std::string(error.what()).find("expected "), std::string::npos) << error.what();
    }
  }
}

TEST(Backend, standAloneOperationsSayWhyNot) {
  std::unique_ptr<core::Backend> const backend = make_backend();
  if (driver().reason.empty()) GTEST_SKIP() << "this machine has a CUDA device";
  core::MergeCall merge;
  merge.tokens = merge.heads = 1;
  merge.device = {FLASHMLA_CUDA, 0};
  core::AppendCall append;
  append.tokens = 1;
  append.device = {FLASHMLA_CUDA, 0};
  append.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  auto const expect_unsupported = [](char const* operation, auto const& body) {
    try {
      body();
      ADD_FAILURE() << operation << " without a GPU";
    } catch (core::Error const& error) {
      EXPECT_EQ(error.status(), FLASHMLA_UNSUPPORTED) << error.what();
      EXPECT_EQ(std::string(error.what()).rfind(std::string(operation) + ": device: got cuda:0", 0), 0U) << error.what();
    }
  };
  expect_unsupported("merge", [&] { backend->merge(merge, nullptr); });
  expect_unsupported("append", [&] { backend->append(append, nullptr); });
}

TEST(Backend, nothingToDoNeedsNoDevice) {
  std::unique_ptr<core::Backend> const backend = make_backend();
  EXPECT_NO_THROW(backend->merge(core::MergeCall{}, nullptr));
  EXPECT_NO_THROW(backend->append(core::AppendCall{}, nullptr));
}

TEST(Backend, survivesAFork) {
  std::unique_ptr<core::Backend> const before = make_backend();
  static_cast<void>(before->devices());
  pid_t const child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::unique_ptr<core::Backend> const backend = make_backend();
    bool is_sound = true;
    for (core::DeviceRow const& row : backend->devices()) is_sound = is_sound && row.usable == row.reason.empty();
    try {
      static_cast<void>(backend->make_plan(some_problem(), device(0)));
    } catch (core::Error const&) {
    }
    _exit(is_sound ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace flashmla::cuda
