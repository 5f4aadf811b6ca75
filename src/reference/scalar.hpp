// Numbers as bits: BF16 and FP16 to and from double, by the definition of the formats and nothing else.
//
// A 16-bit float is sign, exponent field e and fraction f of `fraction_bits`: (1 + f) * 2^(e - bias), without the 1 where
// e = 0, infinite or NaN where e is all ones. Rounding is to nearest, ties to even, once, from the double.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>
#include <cstdint>

namespace flashmla::reference {

struct FloatFormat {
  int fraction_bits;
  int exponent_bits;
};
inline constexpr FloatFormat kBf16{7, 8};
inline constexpr FloatFormat kFp16{10, 5};

/// The value of a 16-bit code.
double decode_float(FloatFormat format, uint16_t code);

/// The nearest code; values beyond the largest finite one become infinite, NaN stays NaN.
uint16_t encode_float(FloatFormat format, double value);

/// Bytes of one element of BF16, FP16 or FP32.
size_t element_bytes(flashmla_dtype dtype);

/// Element `index` of an array of BF16, FP16 or FP32.
double load(flashmla_dtype dtype, void const* data, int64_t index);
/// `count` elements from `index` on, into `values`.
void load(flashmla_dtype dtype, void const* data, int64_t index, int64_t count, double* values);
void store(flashmla_dtype dtype, void* data, int64_t index, double value);

}  // namespace flashmla::reference
