// What every kind of check has in common: where it runs, how it ends.
#pragma once

#include <flashmla/flashmla.h>

#include <string>

#include "conformance/device_memory.hpp"
#include "conformance/oracle.hpp"

namespace flashmla::conformance {

enum class Status { kPassed, kFailed, kSkipped };

struct Outcome {
  Status status = Status::kPassed;
  std::string text;         // failed: what is wrong; skipped: the library's message
  double out_l2 = 0;        // relative L2 error of out
  double lse_abs = 0;       // worst absolute error of lse
  bool other_bits = false;  // failed: two runs of one call differ
};

/// The machine under test.
struct Bench {
  flashmla_target target;
  DeviceMemory& memory;
  Oracle& oracle;
  /// For random problems, 0 elsewhere. Their lengths and scores bring some lse so close to 0 that float32 of its parts has no
  /// relative precision left: an absolute error that passes whatever the relative one, beyond upstream's 1e-6.
  double lse_abs = 0;
  /// And a sink takes some rows of FP16 down to where numbers are 2^-24 apart: what rounding alone does to an element there.
  double fp16_abs = 0;
};

inline Outcome failed(std::string text) { return {Status::kFailed, std::move(text)}; }
inline Outcome skipped(std::string text) { return {Status::kSkipped, std::move(text)}; }

/// How a check ends when a call of the library did not succeed: skipped if it is unsupported, else failed. `FLASHMLA_OK`
/// must not come here.
Outcome refused(char const* call, flashmla_status status);

/// Fault records as text, and whether two name the same fault.
std::string text_of(flashmla_fault const& fault);
bool same(flashmla_fault const& a, flashmla_fault const& b);

}  // namespace flashmla::conformance
