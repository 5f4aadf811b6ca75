#include <gtest/gtest.h>

#include <cstring>
#include <flashmla/info.hpp>
#include <set>
#include <string>

#include "api/backends.hpp"

namespace flashmla {
namespace {

TEST(Info, TheCpuComesFirstAndIsUsable) {
  std::vector<DeviceInfo> const all = devices();
  ASSERT_GE(all.size(), 1u);
  EXPECT_EQ(all[0].device.kind, FLASHMLA_CPU);
  EXPECT_EQ(all[0].usable, 1);
  EXPECT_GE(all[0].num_units, 1);
  EXPECT_GE(all[0].capability, FLASHMLA_ISA_PORTABLE);
  EXPECT_GT(all[0].memory_bytes, 0);
  EXPECT_STRNE(all[0].name, "");
  EXPECT_STREQ(all[0].reason, "");
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(all[i].device.kind, FLASHMLA_CUDA);
    EXPECT_EQ(all[i].device.index, static_cast<int32_t>(i) - 1);
    EXPECT_EQ(all[i].usable == 1, std::string(all[i].reason).empty());
  }
}

TEST(Info, KernelRowsHaveNamesAndReasons) {
  std::set<std::string> names;
  bool portable_is_usable = false;
  for (KernelInfo const& kernel : kernels()) {
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name;
    EXPECT_STRNE(kernel.serves, "");
    EXPECT_EQ(kernel.usable == 1, std::string(kernel.reason).empty()) << kernel.name;
    if (kernel.isa == FLASHMLA_ISA_PORTABLE) portable_is_usable = kernel.usable == 1;
    EXPECT_EQ(kernel.isa == FLASHMLA_ISA_AUTO, kernel.device_kind == FLASHMLA_CUDA) << kernel.name;
  }
  EXPECT_TRUE(portable_is_usable);
}

TEST(Info, IndicesAndSizesAreChecked) {
  DeviceInfo device{};
  device.struct_size = sizeof device;
  EXPECT_EQ(flashmla_get_device_info(-1, &device), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_get_device_info(flashmla_num_devices(), &device), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(flashmla_last_error()).find("get_device_info: index: got " + std::to_string(flashmla_num_devices())),
            std::string::npos);
  EXPECT_STREQ(device.name, "");
  EXPECT_EQ(flashmla_get_device_info(0, nullptr), FLASHMLA_INVALID_ARGUMENT);
  device.struct_size = 8;
  EXPECT_EQ(flashmla_get_device_info(0, &device), FLASHMLA_INVALID_ARGUMENT);
  KernelInfo kernel{};
  EXPECT_EQ(flashmla_get_kernel_info(0, &kernel), FLASHMLA_INVALID_ARGUMENT);
  kernel.struct_size = sizeof kernel + 64;  // of a later version: the fields known here are filled in
  EXPECT_EQ(flashmla_get_kernel_info(0, &kernel), FLASHMLA_OK);
  EXPECT_EQ(kernel.struct_size, sizeof kernel + 64);
  EXPECT_EQ(flashmla_get_kernel_info(flashmla_num_kernels(), &kernel), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_get_driver_info(nullptr), FLASHMLA_INVALID_ARGUMENT);
}

TEST(Info, TheDriverAndTheBuildAgree) {
  DriverInfo const found = driver();
  EXPECT_EQ(found.built, FLASHMLA_WITH_CUDA);
  std::string const build = build_info();
  EXPECT_NE(build.find("portable"), std::string::npos) << build;
  EXPECT_EQ(build.find("cuda off") == std::string::npos, found.built == 1) << build;
  EXPECT_EQ(build.find('\n'), std::string::npos);
#if defined(__x86_64__)
  EXPECT_NE(build.find("avx512_bf16"), std::string::npos) << build;
  EXPECT_EQ(build.find("neon"), std::string::npos) << build;  // rows of the other architecture have no code here
#elif defined(__aarch64__)
  EXPECT_NE(build.find("neon_bf16"), std::string::npos) << build;
  EXPECT_EQ(build.find("avx"), std::string::npos) << build;
#endif
  if (found.built == 0) {
    EXPECT_STRNE(found.reason, "");
    EXPECT_EQ(found.found, 0);
  }
}

TEST(Info, Versions) {
  EXPECT_EQ(flashmla_abi_version(), static_cast<uint32_t>(FLASHMLA_ABI_VERSION));
  EXPECT_EQ(version(), FLASHMLA_VERSION);
}

TEST(Backends, AreMadeOnceInOrder) {
  auto const& list = api::backends();
  ASSERT_EQ(list.size(), FLASHMLA_WITH_CUDA ? 2u : 1u);
  EXPECT_EQ(list[0]->kind(), FLASHMLA_CPU);
  EXPECT_EQ(&api::backends(), &list);
}

}  // namespace
}  // namespace flashmla
