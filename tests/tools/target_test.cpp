#include "tools/flashmla/target.hpp"

#include <gtest/gtest.h>

#include "tools/flashmla/errors.hpp"

namespace flashmla::tools {
namespace {

TEST(Target, IsaNamesGoBothWays) {
  for (int32_t isa = FLASHMLA_ISA_AUTO; isa <= FLASHMLA_ISA_AMX_BF16; ++isa) EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  EXPECT_STREQ(isa_name(99), "?");
  EXPECT_THROW(static_cast<void>(parse_isa("sse")), UsageError);
}

TEST(Target, DtypeBringsItsCacheFormat) {
  EXPECT_EQ(parse_dtype("bf16").format, kKvBf16_576);
  EXPECT_EQ(parse_dtype("fp16").dtype, kFp16);
  EXPECT_EQ(parse_dtype("fp32").format, FLASHMLA_KV_FP32_576);
  EXPECT_EQ(parse_dtype("bf16_320").token_bytes(), 640);
  EXPECT_EQ(parse_dtype("bf16_288").token_bytes(), 576);
  EXPECT_EQ(parse_dtype("bf16_288").v_dim, 256);
  for (char const* const name : {"bf16", "fp16", "fp32", "bf16_320", "bf16_288"}) EXPECT_STREQ(dtype_name(parse_dtype(name)), name);
  EXPECT_THROW(static_cast<void>(parse_dtype("fp8")), UsageError);
  EXPECT_EQ(parse_16_bit_dtype("fp16").dtype, kFp16);
  EXPECT_THROW(static_cast<void>(parse_16_bit_dtype("fp32")), UsageError);
  EXPECT_THROW(static_cast<void>(parse_16_bit_dtype("bf16_320")), UsageError) << "what is served has keys of 576 numbers";
}

TEST(Target, CpuIsAlwaysThere) {
  BackendOptions options;
  options.backend = "cpu";
  options.threads = 3;
  Target const target = parse_target(options);
  EXPECT_EQ(target.device.kind, FLASHMLA_CPU);
  EXPECT_EQ(num_threads(target), 3);
  EXPECT_NE(describe_target(target).find("3 threads"), std::string::npos);
  EXPECT_NE(chosen_isa(target), FLASHMLA_ISA_AUTO);
}

TEST(Target, UnknownBackendsAndDevicesAreNamed) {
  BackendOptions options;
  options.backend = "tpu";
  EXPECT_THROW(static_cast<void>(parse_target(options)), UsageError);
  options.backend = "cuda";
  options.device = 1000;
  EXPECT_THROW(static_cast<void>(parse_target(options)), UsageError);
}

}  // namespace
}  // namespace flashmla::tools
