// New tokens into their pages, by definition: token i goes to slot_mapping[i] = page * page_tokens + offset, bit for bit.
//
// Slot -1 skips the token. Any other slot outside the cache skips it too, and is a fault.
#pragma once

#include <vector>

#include "core/calls.hpp"

namespace flashmla::reference {

/// Writes call.cache. Returns every fault, in order of tokens; a backend records any one of them. `call.fault` is not
/// touched. Pointers of `call` are host pointers.
std::vector<flashmla_fault> append(core::AppendCall const& call);

}  // namespace flashmla::reference
