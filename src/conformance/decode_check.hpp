// Runs one case of dense decode on a machine and judges it: values against the oracle, poison, guards, faults, and that
// every run gives the same bits.
#pragma once

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

/// The case, with the length of its longest request declared where the machine needs that for batch-invariant calls.
DecodeCase with_bounded_chunks(DecodeCase c, Bench const& bench);

Outcome check_decode(DecodeCase const& c, Bench const& bench);

/// The rows of a case to check with a budget: all if they fit, else the corners of (request, query token, head), the
/// shortest and the longest request, and random ones.
std::vector<reference::Row> rows_to_check(DecodeCase const& c, int64_t budget);

}  // namespace flashmla::conformance
