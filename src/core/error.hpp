// One error type for the whole library: a status code and one line of text.
//
// Grammar of the text: `operation: argument: got X, expected Y (reason)`. The number printed is the number compared.
// Thrown inside the library, turned into a status and a thread-local message at the C ABI (src/api).
#pragma once

#include <flashmla/flashmla.h>

#include <stdexcept>
#include <string>

namespace flashmla::core {

class Error : public std::runtime_error {
 public:
  Error(flashmla_status status, std::string const& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] flashmla_status status() const noexcept { return status_; }

 private:
  flashmla_status status_;
};

/// Throws Error(kInvalidArgument) with `operation: argument: got <got>, expected <expected>`.
[[noreturn]] void fail_invalid(std::string const& operation, std::string const& argument, std::string const& got,
                               std::string const& expected);

/// Throws Error(FLASHMLA_UNSUPPORTED) with `operation: argument: got <got>, expected <nearest supported>`.
[[noreturn]] void fail_unsupported(std::string const& operation, std::string const& argument, std::string const& got,
                                   std::string const& nearest);

}  // namespace flashmla::core
