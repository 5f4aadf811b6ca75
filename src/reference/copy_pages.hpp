// Pages over other pages, by definition: in every cache, each element of the source goes to its place in the target.
#pragma once

#include "core/calls.hpp"

namespace flashmla::reference {

/// Writes call.caches. Pointers of `call` are host pointers.
void copy_pages(core::CopyPagesCall const& call);

}  // namespace flashmla::reference
