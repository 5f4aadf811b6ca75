// Stand-alone operations: new tokens into a paged cache, and the merge of partial attention results.
#pragma once

#include <flashmla/flashmla.h>

#include <flashmla/error.hpp>
#include <flashmla/problem.hpp>
#include <flashmla/view.hpp>

namespace flashmla {

/// Shapes of the fields: flashmla.h.
struct AppendArgs : flashmla_append_args {
  AppendArgs() noexcept : flashmla_append_args{} { struct_size = sizeof(flashmla_append_args); }
};
struct MergeArgs : flashmla_merge_args {
  MergeArgs() noexcept : flashmla_merge_args{} { struct_size = sizeof(flashmla_merge_args); }
};

/// Enqueues: writes tokens into their slots of the cache; slot -1 skips a token. Throws Error.
inline void append(AppendArgs const& args, Stream stream = nullptr) { check(flashmla_append(&args, stream)); }

/// Enqueues: out = sum_i w_i out_i with w_i = exp(lse_i - lse), the parts in order. Throws Error.
inline void merge(MergeArgs const& args, Stream stream = nullptr) { check(flashmla_merge(&args, stream)); }

}  // namespace flashmla
