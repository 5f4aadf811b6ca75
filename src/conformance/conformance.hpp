// The conformance suite: every case of a tier, through the public C ABI, on one device and one set of kernels.
//
// `flashmla check`, the tests and the GPU checks all call `run`. It prints nothing and measures no time; progress and
// the report are for the caller to show. A problem that the library does not serve is counted as skipped, with the
// library's own words.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

/// One thing that can pass or fail.
struct Check {
  std::string name;                            // unique; the first part is the operation
  flashmla_dtype dtype = FLASHMLA_DTYPE_NONE;  // of the cache or the partial results; none: not about numbers
  std::function<Outcome(Bench const&)> run;
};

/// All checks of a tier: decode, merge, append, page pool.
std::vector<Check> checks(Tier tier);

struct Progress {
  std::string const& name;  // of the check that just ended
  Outcome const& outcome;
  int64_t done, total;
};

struct Options {
  Tier tier = Tier::kSmoke;
  flashmla_target target{};                    // struct_size may be left 0
  flashmla_dtype dtype = FLASHMLA_DTYPE_NONE;  // only checks about this dtype; none: all
  std::string name_filter;                     // only names that contain this
  int64_t every = 1;                           // only every n-th of the checks so chosen; a prime leaves out no value of any axis
  DeviceMemory* memory = nullptr;              // null: the host's; required for a CUDA target
  Oracle* oracle = nullptr;                    // null: the reference on sampled rows
  bool stop_on_failure = false;
  std::function<void(Progress const&)> on_progress;  // may be empty
};

struct Verdict {
  std::string name, text;
};
struct Worst {
  std::string name;
  double value = 0;
};

struct Report {
  int64_t passed = 0, failed = 0, skipped = 0;
  std::vector<Verdict> failures, skips;
  Worst out_l2, lse_abs;  // over what passed
  /// A few lines for a terminal: counts, worst errors, failures, and skips grouped by the library's reason.
  [[nodiscard]] std::string text() const;
};

Report run(Options const& options);

}  // namespace flashmla::conformance
