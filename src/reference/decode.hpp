// Dense decode attention, by definition: fp64, one row at a time, no blocking, no online softmax.
//
//   s_t = scale * q . k_t            for the keys t that the row sees
//   p_t = exp(s_t) / sum exp(s)
//   out = sum_t p_t v_t              v_t = the first v_dim numbers of k_t
//   lse = log sum exp(s)
//
// Whatever any backend computes is compared with this. Nothing is read that the row does not see: neither tokens past
// its visible length nor table entries past the pages that hold them.
#pragma once

#include <vector>

#include "core/calls.hpp"

namespace flashmla::reference {

/// One row of the score matrix.
struct Row {
  int32_t request, q_idx, head;
};

struct RowResult {
  std::vector<double> out;  // [v_dim], the sink applied
  double lse;               // in the base and with the empty-row value that the problem asks for
};

/// Tokens of a request after clamping its length to what its row of the page table can hold, and to max_kv_len if that was
/// declared; a negative length counts as 0.
int32_t clamped_kv_len(core::Problem const& problem, core::DecodeCall const& call, int32_t request);

/// The result of one row, unrounded. Writes nothing. Pointers of `call` are host pointers.
RowResult decode_row(core::Problem const& problem, core::DecodeCall const& call, Row row);

/// All rows, rounded into call.out and call.lse.
void decode(core::Problem const& problem, core::DecodeCall const& call);

/// Everything in lengths and page ids that a backend has to mask, in order of request and position; a backend records
/// any one of them. Of page ids, only those are listed that some query token would read through.
std::vector<flashmla_fault> faults(core::Problem const& problem, core::DecodeCall const& call);

}  // namespace flashmla::reference
