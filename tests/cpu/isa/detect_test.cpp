#include "cpu/isa/detect.hpp"

#include <gtest/gtest.h>

namespace flashmla::cpu {
namespace {

TEST(Detect, PortableNeedsNothing) { EXPECT_EQ(missing_features(FLASHMLA_ISA_PORTABLE), ""); }

TEST(Detect, TheLargerSetImpliesTheSmaller) {
  std::string const missing = missing_features(FLASHMLA_ISA_AVX512_BF16);
  if (missing.empty()) {
    EXPECT_EQ(missing_features(FLASHMLA_ISA_AVX2), "");
  } else {
    EXPECT_NE(missing.find("CPU"), std::string::npos) << missing;
  }
}

}  // namespace
}  // namespace flashmla::cpu
