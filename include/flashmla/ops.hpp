// Stand-alone operations: new tokens into a paged cache, copies of its pages, and the merge of partial attention results.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <flashmla/error.hpp>
#include <flashmla/page_pool.hpp>
#include <flashmla/problem.hpp>
#include <flashmla/view.hpp>
#include <span>
#include <vector>

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

/// Enqueues: copies whole pages in the caches of all layers, as PagePool::fork asks for. The caches are views
/// [num_pages, ...] of one device, dtype, shape and strides, last stride 1. Copies have no order: no target may be named
/// twice or be a source too. Both lists are read before the call returns; inside stream capture they become part of the
/// graph. Throws Error.
inline void copy_pages(std::span<View const> caches, std::span<PageCopy const> copies, Stream stream = nullptr) {
  std::vector<flashmla_view> const views(caches.begin(), caches.end());
  flashmla_copy_pages_args args{};
  args.struct_size = sizeof args;
  args.caches = views.data();
  args.num_caches = static_cast<int64_t>(views.size());
  args.copies = copies.data();
  args.num_copies = static_cast<int64_t>(copies.size());
  check(flashmla_copy_pages(&args, stream));
}

/// Enqueues: out = sum_i w_i out_i with w_i = exp(lse_i - lse), the parts in order. Throws Error.
inline void merge(MergeArgs const& args, Stream stream = nullptr) { check(flashmla_merge(&args, stream)); }

}  // namespace flashmla
