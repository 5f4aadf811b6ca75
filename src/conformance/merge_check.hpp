// The public merge of partial results against the reference, with empty parts whose outputs are NaN.
#pragma once

#include <string>
#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

enum class EmptyParts {
  kNone,
  kSome,  // a third of all (part, token, head), +inf and -inf by turns
  kAll,   // besides, every part of every other token
};

struct MergeCase {
  std::string name;
  int64_t parts = 3, tokens = 5, heads = 16, v_dim = 512;
  flashmla_dtype partial_dtype = FLASHMLA_FP32, out_dtype = FLASHMLA_BF16;
  flashmla_lse_base lse_base = FLASHMLA_LSE_NATURAL;
  flashmla_empty_row empty_row = FLASHMLA_EMPTY_LSE_PLUS_INF;
  EmptyParts empty = EmptyParts::kNone;
  bool sink = false, want_lse = true;
  bool padded = false;  // rows of partial_out and out lie apart; lse of either is head-major
};

std::vector<MergeCase> merge_cases(Tier tier);
Outcome check_merge(MergeCase const& c, Bench const& bench);

}  // namespace flashmla::conformance
