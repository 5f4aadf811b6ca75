// Words for enumerators, as they appear in messages and tables.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace flashmla::core {

/// "BF16", "INT32", ...; "?" for a value that is no dtype.
char const* dtype_name(int32_t dtype) noexcept;

/// The same for messages, which must name the value that came: the number of what is no dtype.
std::string dtype_text(int32_t dtype);

/// Bytes of one element; 0 for FLASHMLA_DTYPE_NONE and for a value that is no dtype.
constexpr size_t dtype_bytes(int32_t dtype) noexcept {
  switch (dtype) {
    case FLASHMLA_BF16:
    case FLASHMLA_FP16:
      return 2;
    case FLASHMLA_FP32:
    case FLASHMLA_INT32:
      return 4;
    case FLASHMLA_FP64:
    case FLASHMLA_INT64:
      return 8;
    case FLASHMLA_INT8:
    case FLASHMLA_UINT8:
    case FLASHMLA_E4M3:
      return 1;
    default:
      return 0;
  }
}

/// "cpu" or "cuda:1".
std::string device_name(flashmla_device device);

/// "auto", "portable", "avx2", "avx512_bf16".
char const* isa_name(int32_t isa) noexcept;

/// The cache formats that are built, for messages: "BF16_576, FP16_576 or FP32_576".
std::string built_formats();

/// "FLASHMLA_OK", ...
char const* status_name(int32_t status) noexcept;

}  // namespace flashmla::core
