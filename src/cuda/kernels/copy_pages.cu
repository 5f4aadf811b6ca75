// Launcher and instances of copy_pages: 16-byte words where every address allows them, else bytes.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "core/planner.hpp"
#include "cuda/kernels/copy_pages.cuh"
#include "cuda/kernels/copy_pages.hpp"
#include "cuda/launch.hpp"

namespace flashmla::cuda {
namespace {

using copy_pages::CopyPagesParams;
constexpr char kOperation[] = "copy_pages";

bool allows_vectors(core::CopyPagesCall const& call) {
  constexpr int64_t kBytes = sizeof(uint4);
  for (int64_t const elems : {call.page_stride, call.row_stride[0], call.row_stride[1], call.width})
    if (elems * call.elem_bytes % kBytes != 0) return false;
  return std::all_of(call.caches, call.caches + call.num_caches,
                     [](flashmla_view const& cache) { return reinterpret_cast<uintptr_t>(cache.data) % kBytes == 0; });
}

/// What all launches of a call have in common. `word_bytes` divides every stride.
CopyPagesParams params_of(core::CopyPagesCall const& call, int64_t word_bytes) {
  auto const words = [&](int64_t elems) { return elems * call.elem_bytes / word_bytes; };
  CopyPagesParams params{};
  params.page_stride = words(call.page_stride);
  params.row_stride[0] = words(call.row_stride[0]);
  params.row_stride[1] = words(call.row_stride[1]);
  params.width = words(call.width);
  params.inner_rows = call.rows[1];
  params.page_words = call.rows[0] * call.rows[1] * params.width;
  int64_t const chunks = core::ceil_div(params.page_words, copy_pages::kWordsPerCta);
  constexpr int64_t kMostTasks = copy_pages::kMaxCaches * copy_pages::kMaxCopies;
  if (chunks > std::numeric_limits<int32_t>::max() / kMostTasks)
    core::fail_unsupported(kOperation, "caches[0]", "pages of " + std::to_string(params.page_words * word_bytes) + " bytes",
                           "pages of at most 88 MB (1.4 GB where addresses and strides are multiples of 16 bytes)");
  params.num_chunks = static_cast<int32_t>(chunks);
  return params;
}

}  // namespace

void launch_copy_pages(core::CopyPagesCall const& call, flashmla_stream stream) {
  std::vector<flashmla_page_copy> copies;
  std::copy_if(call.copies, call.copies + call.num_copies, std::back_inserter(copies),
               [](flashmla_page_copy const& copy) { return copy.source >= 0; });
  bool const is_vector = allows_vectors(call);
  CopyPagesParams params = params_of(call, is_vector ? sizeof(uint4) : 1);
  auto* const kernel = is_vector ? copy_pages::copy_pages_kernel<uint4> : copy_pages::copy_pages_kernel<uint8_t>;
  static LoadOnce loads[2];
  loads[is_vector ? 1 : 0](kOperation, kernel, call.device.index);
  for (int64_t c = 0; c < call.num_caches; c += copy_pages::kMaxCaches) {
    int64_t const caches = std::min<int64_t>(copy_pages::kMaxCaches, call.num_caches - c);
    for (int64_t i = 0; i < caches; ++i) params.caches[i] = call.caches[c + i].data;
    for (size_t first = 0; first < copies.size(); first += copy_pages::kMaxCopies) {
      size_t const count = std::min<size_t>(copy_pages::kMaxCopies, copies.size() - first);
      std::copy_n(copies.begin() + static_cast<std::ptrdiff_t>(first), count, params.copies);
      params.num_copies = static_cast<int32_t>(count);
      unsigned const grid = static_cast<unsigned>(caches * params.num_copies * params.num_chunks);
      launch_overlapped(kOperation, kernel, {grid, copy_pages::kThreads, 0, static_cast<cudaStream_t>(stream)}, params);
    }
  }
}

}  // namespace flashmla::cuda
