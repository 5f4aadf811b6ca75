// How a command ends other than well. Exit codes: 0 done, 1 a check failed or the machine did, 2 the caller's mistake.
#pragma once

#include <stdexcept>
#include <string>

namespace flashmla::tools {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

/// Arguments or input that cannot be served; the text is in the grammar of the library's errors.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace flashmla::tools
