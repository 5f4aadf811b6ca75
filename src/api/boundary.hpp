// The boundary of the C ABI: exceptions end here, as a status and this thread's last error.
#pragma once

#include <flashmla/flashmla.h>

#include <string>

#include "core/error.hpp"

namespace flashmla::api {

/// Sets this thread's last error, cut to a fixed buffer, so that reporting an error can't fail. Returns `status`.
flashmla_status set_error(flashmla_status status, char const* message) noexcept;
void clear_error() noexcept;
char const* last_error() noexcept;
/// To be called inside a catch block: turns the exception in flight into a status.
flashmla_status report_exception(char const* operation) noexcept;

/// Runs `body`; nothing it throws gets out.
template <typename Body>
flashmla_status guarded(char const* operation, Body&& body) noexcept {
  try {
    body();
    clear_error();
    return FLASHMLA_OK;
  } catch (...) {
    return report_exception(operation);
  }
}

template <typename T>
void require(char const* operation, char const* argument, T const* pointer) {
  if (pointer == nullptr) core::fail_invalid(operation, argument, "null", "a pointer (required)");
}

/// Of a struct that the library fills in: only its size is read.
inline void check_output_size(char const* operation, uint32_t struct_size, size_t known) {
  if (struct_size < known) core::fail_invalid(operation, "struct_size", std::to_string(struct_size), "at least " + std::to_string(known));
}

}  // namespace flashmla::api
