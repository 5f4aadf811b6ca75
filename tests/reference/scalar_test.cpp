#include "reference/scalar.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace flashmla::reference {
namespace {

TEST(Scalar, KnownCodes) {
  EXPECT_EQ(encode_float(kBf16, 1.0), 0x3f80);
  EXPECT_EQ(encode_float(kFp16, 1.0), 0x3c00);
  EXPECT_EQ(encode_float(kFp16, -2.0), 0xc000);
  EXPECT_EQ(encode_float(kFp16, 65504.0), 0x7bff);
  EXPECT_EQ(decode_float(kFp16, 0x0001), std::ldexp(1.0, -24));
  EXPECT_EQ(decode_float(kFp16, 0x03ff), std::ldexp(1023.0, -24));
  EXPECT_EQ(decode_float(kBf16, 0x0001), std::ldexp(1.0, -133));
  EXPECT_EQ(decode_float(kBf16, 0x4049), 3.140625);
  EXPECT_EQ(decode_float(kFp16, 0xfc00), -std::numeric_limits<double>::infinity());
}

TEST(Scalar, Bf16IsTheUpperHalfOfAFloat) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    float const expected = std::bit_cast<float>(code << 16);
    double const actual = decode_float(kBf16, static_cast<uint16_t>(code));
    if (std::isnan(expected)) EXPECT_TRUE(std::isnan(actual)) << code;
    else EXPECT_EQ(actual, expected) << code;
  }
}

TEST(Scalar, EveryCodeSurvivesARoundTrip) {
  for (FloatFormat const format : {kBf16, kFp16})
    for (uint32_t code = 0; code < 0x10000; ++code) {
      double const value = decode_float(format, static_cast<uint16_t>(code));
      if (!std::isnan(value)) EXPECT_EQ(encode_float(format, value), code);
      else EXPECT_TRUE(std::isnan(decode_float(format, encode_float(format, value))));
    }
}

/// Between neighbours a < b: the midpoint goes to the even code, anything to either side of it to the nearer one.
TEST(Scalar, RoundsToNearestTiesToEven) {
  for (FloatFormat const format : {kBf16, kFp16}) {
    uint32_t const infinity = ((1u << format.exponent_bits) - 1) << format.fraction_bits;
    for (uint32_t code = 0; code + 1 < infinity; ++code) {
      double const low = decode_float(format, static_cast<uint16_t>(code)), high = decode_float(format, static_cast<uint16_t>(code + 1));
      double const middle = low + (high - low) / 2;
      EXPECT_EQ(encode_float(format, middle), code % 2 == 0 ? code : code + 1);
      EXPECT_EQ(encode_float(format, std::nextafter(middle, low)), code);
      EXPECT_EQ(encode_float(format, -std::nextafter(middle, high)), 0x8000 | (code + 1));
    }
  }
}

TEST(Scalar, BeyondTheLargestIsInfinite) {
  EXPECT_EQ(encode_float(kFp16, 65519.9), 0x7bff);
  EXPECT_EQ(encode_float(kFp16, 65520.0), 0x7c00);
  EXPECT_EQ(encode_float(kFp16, -1e300), 0xfc00);
  EXPECT_EQ(encode_float(kBf16, 1e300), 0x7f80);
}

TEST(Scalar, LoadsAndStoresEachType) {
  for (flashmla_dtype const dtype : {FLASHMLA_BF16, FLASHMLA_FP16, FLASHMLA_FP32}) {
    float memory[3] = {};
    store(dtype, memory, 1, -0.75);
    EXPECT_EQ(load(dtype, memory, 1), -0.75);
    EXPECT_EQ(load(dtype, memory, 0), 0);
    EXPECT_EQ(load(dtype, memory, 2), 0);
    double both[2];
    load(dtype, memory, 1, 2, both);
    EXPECT_EQ(both[0], -0.75);
    EXPECT_EQ(both[1], 0);
  }
}

}  // namespace
}  // namespace flashmla::reference
