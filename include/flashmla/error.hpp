// The exception of the C++ API: a status and one line, `operation: argument: got X, expected Y (reason)`.
#pragma once

#include <flashmla/flashmla.h>

#include <stdexcept>
#include <string>

namespace flashmla {

using Status = flashmla_status;

class Error : public std::runtime_error {
 public:
  Error(Status status, std::string const& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] Status status() const noexcept { return status_; }

 private:
  Status status_;
};

/// Throws Error with this thread's last message unless `status` is FLASHMLA_OK.
inline void check(Status status) {
  if (status != FLASHMLA_OK) throw Error(status, flashmla_last_error());
}

}  // namespace flashmla
