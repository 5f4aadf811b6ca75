// Batch invariance: a request's bits are the same whoever else is in the batch, however the work is cut and shared out.
#pragma once

#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

/// Computes the batch of a case once, then random ranges of its requests as batches of their own, with schedules made for
/// lengths of others too and with other numbers of threads or multiprocessors: bits must not change. Skipped where
/// batch_invariant is not served.
Outcome check_invariance(DecodeCase const& c, Bench const& bench);

std::vector<DecodeCase> invariance_cases(Tier tier);

}  // namespace flashmla::conformance
