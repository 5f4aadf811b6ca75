#include "reference/scalar.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace flashmla::reference {
namespace {

double power_of_two(int exponent) { return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52); }

}  // namespace

double decode_float(FloatFormat format, uint16_t code) {
  int const bias = (1 << (format.exponent_bits - 1)) - 1;
  int const all_ones = (1 << format.exponent_bits) - 1;
  int const exponent = (code >> format.fraction_bits) & all_ones;
  int const fraction = code & ((1 << format.fraction_bits) - 1);
  double const sign = code & 0x8000 ? -1.0 : 1.0;

  if (exponent == all_ones) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * fraction * power_of_two(1 - bias - format.fraction_bits);
  return sign * ((1 << format.fraction_bits) + fraction) * power_of_two(exponent - bias - format.fraction_bits);
}

uint16_t encode_float(FloatFormat format, double value) {
  uint16_t const sign = std::signbit(value) ? 0x8000 : 0;
  int const infinity = ((1 << format.exponent_bits) - 1) << format.fraction_bits;
  double const magnitude = std::abs(value);

  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | 1 << (format.fraction_bits - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  if (magnitude == 0) return sign;

  // In units of the last place, `significand` is an integer; a carry out of it moves the exponent field up by itself.
  int const min_exponent = 2 - (1 << (format.exponent_bits - 1));
  int const exponent = std::max(std::ilogb(magnitude), min_exponent);
  double const significand = std::nearbyint(std::ldexp(magnitude, format.fraction_bits - exponent));
  int64_t const code = (static_cast<int64_t>(exponent - min_exponent) << format.fraction_bits) + static_cast<int64_t>(significand);
  return static_cast<uint16_t>(sign | std::min<int64_t>(code, infinity));
}

size_t element_bytes(flashmla_dtype dtype) { return dtype == FLASHMLA_FP32 ? 4 : 2; }

double load(flashmla_dtype dtype, void const* data, int64_t index) {
  if (dtype == FLASHMLA_FP32) return static_cast<float const*>(data)[index];
  return decode_float(dtype == FLASHMLA_BF16 ? kBf16 : kFp16, static_cast<uint16_t const*>(data)[index]);
}

void load(flashmla_dtype dtype, void const* data, int64_t index, int64_t count, double* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = load(dtype, data, index + i);
}

void store(flashmla_dtype dtype, void* data, int64_t index, double value) {
  if (dtype == FLASHMLA_FP32) static_cast<float*>(data)[index] = static_cast<float>(value);
  else static_cast<uint16_t*>(data)[index] = encode_float(dtype == FLASHMLA_BF16 ? kBf16 : kFp16, value);
}

}  // namespace flashmla::reference
