// Views and pairs of copy_pages: whole pages to other pages of the same caches.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/names.hpp"
#include "core/struct_check.hpp"
#include "core/view_check.hpp"

namespace flashmla::core {

namespace {

constexpr char kCopyPages[] = "copy_pages";
constexpr char kAsFirst[] = "as caches[0]";

std::string entry(char const* argument, int64_t i, char const* field = "") {
  return std::string(argument) + "[" + std::to_string(i) + "]" + field;
}

void check_array(char const* argument, char const* count_name, int64_t count, int64_t at_least, void const* array) {
  if (count < at_least) fail_invalid(kCopyPages, count_name, std::to_string(count), "at least " + std::to_string(at_least));
  if (count > 0 && array == nullptr) fail_invalid(kCopyPages, argument, "null", "an array of " + std::to_string(count));
}

/// One cache by itself: memory on the device of the first, with its dtype, shape and strides.
void check_cache(char const* name, flashmla_view const& cache, flashmla_view const& first) {
  ViewCheck check(kCopyPages, first.device);
  auto const dtype = static_cast<flashmla_dtype>(first.dtype);
  int64_t const* const size = first.size;
  switch (first.rank) {
    case 2:
      check.output(name, cache, dtype, ViewCheck::kRows, {{size[0], kAsFirst}, {size[1], kAsFirst}});
      break;
    case 3:
      check.output(name, cache, dtype, ViewCheck::kRows, {{size[0], kAsFirst}, {size[1], kAsFirst}, {size[2], kAsFirst}});
      break;
    default:
      check.output(name, cache, dtype, ViewCheck::kRows,
                   {{size[0], kAsFirst}, {size[1], kAsFirst}, {size[2], kAsFirst}, {size[3], kAsFirst}});
  }
  for (int i = 0; i < first.rank; ++i)
    if (first.size[i] > 1 && cache.stride[i] != first.stride[i])
      check.fail(name, {"stride ", std::to_string(i), " = ", std::to_string(cache.stride[i])},
                 {std::to_string(first.stride[i]), " (", kAsFirst, ")"});
}

void check_first(flashmla_view const& first) {
  ViewCheck const check(kCopyPages, first.device);
  check.require("caches[0]", first, "a view [num_pages, ...]");
  if ((first.device.kind != FLASHMLA_CPU && first.device.kind != FLASHMLA_CUDA) || first.device.index < 0)
    check.fail("caches[0]", {"a view on ", device_name(first.device)}, {"cpu or a CUDA device"});
  if (dtype_bytes(first.dtype) == 0)
    check.fail("caches[0]", {"dtype ", dtype_text(first.dtype)}, {"a dtype of known size, such as BF16 or UINT8"});
  if (first.rank < 2 || first.rank > 4) check.fail("caches[0]", {"rank ", std::to_string(first.rank)}, {"rank 2 to 4: [num_pages, ...]"});
}

/// Caches lie apart, or between each other's pages.
void check_apart(CopyPagesCall const& call) {
  auto const address = [&](int64_t i) { return reinterpret_cast<uintptr_t>(call.caches[i].data); };
  int64_t const last = (call.num_pages - 1) * call.page_stride + (call.rows[0] - 1) * call.row_stride[0] +
                       (call.rows[1] - 1) * call.row_stride[1] + call.width;
  uintptr_t const bytes = static_cast<uintptr_t>(last * call.elem_bytes);  // in range: each view was checked
  std::vector<int64_t> order(static_cast<size_t>(call.num_caches));
  for (int64_t i = 0; i < call.num_caches; ++i) order[static_cast<size_t>(i)] = i;
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return std::pair(address(a), a) < std::pair(address(b), b); });
  for (size_t i = 0; i < order.size(); ++i) {
    for (size_t j = i + 1; j < order.size() && address(order[j]) - address(order[i]) < bytes; ++j) {
      auto const [low, high] = std::minmax(order[i], order[j]);
      std::string const first = entry("caches", low), second = entry("caches", high);
      ViewCheck check(kCopyPages, call.device);
      check.known_outputs({{first.c_str(), &call.caches[low]}, {second.c_str(), &call.caches[high]}});
      check.check_overlap();
    }
  }
}

/// A page of the first cache as few and long rows.
void describe_page(flashmla_view const& cache, CopyPagesCall& call) {
  call.elem_bytes = static_cast<int64_t>(dtype_bytes(cache.dtype));
  call.num_pages = cache.size[0];
  call.page_stride = cache.stride[0];
  call.width = cache.size[cache.rank - 1];
  for (int i = 1; i < cache.rank - 1; ++i) {
    int const row = i + 4 - cache.rank - 1;  // the innermost dimension of rows is rows[1]
    call.rows[row] = cache.size[i];
    call.row_stride[row] = cache.stride[i];
  }
  if (call.num_pages == 0 || call.rows[0] == 0 || call.rows[1] == 0) call.width = 0;
  if (call.width == 0) return;  // sizes and strides of a view without elements were not checked: their products may overflow
  for (int row : {1, 0}) {
    if (row == 0 && call.rows[1] != 1) break;
    if (call.rows[row] != 1 && call.row_stride[row] != call.width) break;
    call.width *= call.rows[row];
    call.rows[row] = 1;
    call.row_stride[row] = 0;
  }
}

void check_page_id(CopyPagesCall const& call, int64_t i, char const* field, int32_t id) {
  if (id < 0 || id >= call.num_pages)
    fail_invalid(kCopyPages, entry("copies", i, field), std::to_string(id),
                 "a page id in [0, " + std::to_string(call.num_pages) + "), or a pair of -1");
}

/// Every id is a page, and what a copy writes is touched by no other.
void check_copies(CopyPagesCall const& call) {
  std::vector<std::pair<int32_t, int64_t>> targets;  // and which copy writes them
  targets.reserve(static_cast<size_t>(call.num_copies));
  for (int64_t i = 0; i < call.num_copies; ++i) {
    auto const [source, target] = call.copies[i];
    if (source == -1 && target == -1) continue;
    check_page_id(call, i, ".source", source);
    check_page_id(call, i, ".target", target);
    targets.emplace_back(target, i);
  }
  std::sort(targets.begin(), targets.end());
  for (size_t k = 1; k < targets.size(); ++k)
    if (targets[k].first == targets[k - 1].first)
      fail_invalid(kCopyPages, entry("copies", targets[k].second, ".target"), std::to_string(targets[k].first),
                   "a page that no other copy writes (" + entry("copies", targets[k - 1].second) + " does)");
  for (int64_t i = 0; i < call.num_copies; ++i) {
    int32_t const source = call.copies[i].source;
    auto const found = std::lower_bound(targets.begin(), targets.end(), std::pair(source, int64_t{0}));
    if (source >= 0 && found != targets.end() && found->first == source)
      fail_invalid(kCopyPages, entry("copies", i, ".source"), std::to_string(source),
                   "a page that no copy writes (" + entry("copies", found->second) + " does, and copies have no order)");
  }
}

}  // namespace

CopyPagesCall validate(flashmla_copy_pages_args const& args) {
  check_struct_size(kCopyPages, "flashmla_copy_pages_args", args);
  check_flags(kCopyPages, args.flags, 0);
  check_array("caches", "num_caches", args.num_caches, 1, args.caches);
  check_array("copies", "num_copies", args.num_copies, 0, args.copies);
  CopyPagesCall call;
  call.caches = args.caches;
  call.num_caches = args.num_caches;
  call.copies = args.copies;
  call.num_copies = args.num_copies;
  call.device = args.caches[0].device;
  check_first(args.caches[0]);
  for (int64_t i = 0; i < args.num_caches; ++i) check_cache(entry("caches", i).c_str(), args.caches[i], args.caches[0]);
  describe_page(args.caches[0], call);
  if (call.num_pages > 0 && call.width > 0) check_apart(call);
  check_copies(call);
  return call;
}

}  // namespace flashmla::core
