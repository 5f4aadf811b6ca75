// Merge of partial attention results over disjoint sets of keys, by definition.
//
//   lse = log sum_i exp(lse_i)       over the parts that are not empty
//   out = sum_i exp(lse_i - lse) out_i
//
// A part whose lse is +inf or -inf saw no key: its weight is 0 and its out is not read.
#pragma once

#include "core/calls.hpp"

namespace flashmla::reference {

/// All rows, rounded into call.out and call.lse. Pointers of `call` are host pointers.
void merge(core::MergeCall const& call);

}  // namespace flashmla::reference
