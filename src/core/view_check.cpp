#include "core/view_check.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>

#include "core/calls.hpp"
#include "core/error.hpp"
#include "core/names.hpp"

namespace flashmla::core {

namespace {

bool same_device(flashmla_device a, flashmla_device b) { return a.kind == b.kind && a.index == b.index; }

bool has_elements(flashmla_view const& view) {
  for (int i = 0; i < view.rank; ++i)
    if (view.size[i] == 0) return false;
  return true;
}

/// A view as blocks of `bytes` that repeat at multiples of `period` (0: one block).
struct Repeats {
  int64_t bytes, period;
};

/// Dimensions with more than one entry, in the order of their strides; returns how many.
int sorted_dims(flashmla_view const& view, std::array<int, 4>& order) {
  int count = 0;
  for (int i = 0; i < view.rank; ++i) {
    if (view.size[i] <= 1) continue;
    int at = count++;
    for (; at > 0 && view.stride[order[at - 1]] > view.stride[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  return count;
}

Repeats repeats(flashmla_view const& view) {
  int64_t const elem = static_cast<int64_t>(dtype_bytes(view.dtype));
  std::array<int, 4> order{};
  int const count = sorted_dims(view, order);
  Repeats r{elem, 0};
  for (int k = 0; k < count; ++k) {
    int64_t const stride = view.stride[order[k]] * elem;
    if (r.period == 0 && stride == r.bytes) r.bytes *= view.size[order[k]];
    else r.period = std::gcd(r.period, stride);
  }
  return r;
}

/// Extents that overlap may still share no byte, as two column ranges of one matrix do. Blocks of both views repeat
/// with a common period; if they lie apart within it, they lie apart everywhere.
bool interleaves(Extent const& a, Extent const& b) {
  Repeats const ra = repeats(*a.view), rb = repeats(*b.view);
  int64_t const period = std::gcd(ra.period, rb.period);
  if (period == 0) return false;
  bool const b_is_ahead = b.begin >= a.begin;
  int64_t const distance = static_cast<int64_t>(b_is_ahead ? b.begin - a.begin : a.begin - b.begin) % period;
  int64_t const offset = b_is_ahead || distance == 0 ? distance : period - distance;
  return offset >= ra.bytes && offset <= period - rb.bytes;
}

bool overlap(Extent const& a, Extent const& b) { return a.begin < b.end && b.begin < a.end && !interleaves(a, b); }

std::string join(std::initializer_list<std::string_view> pieces) {
  std::string text;
  for (std::string_view piece : pieces) text += piece;
  return text;
}

}  // namespace

void ViewCheck::fail(char const* argument, std::initializer_list<std::string_view> got,
                     std::initializer_list<std::string_view> expected) const {
  fail_invalid(operation_, argument, join(got), join(expected));
}

void ViewCheck::require(char const* argument, flashmla_view const& view, char const* expected) const {
  if (is_absent(view)) fail(argument, {"no view"}, {expected});
}

void ViewCheck::refuse(char const* argument, flashmla_view const& view, char const* nearest) const {
  if (!is_absent(view)) fail_unsupported(operation_, argument, "a view", nearest);
}

bool ViewCheck::choose_fused(std::array<char const*, 3> const& arguments, flashmla_view const& fused, flashmla_view const& first,
                             flashmla_view const& second) const {
  bool const has_fused = !is_absent(fused), has_first = !is_absent(first), has_second = !is_absent(second);
  if (has_fused && !has_first && !has_second) return true;
  if (!has_fused && has_first && has_second) return false;
  char const* const fused_name = arguments[0];
  std::string const pair = std::string(arguments[1]) + " and " + arguments[2];
  if (has_fused)
    fail(fused_name, {"both it and ", has_first ? arguments[1] : arguments[2]}, {"either ", fused_name, " or the pair ", pair});
  if (!has_first && !has_second) fail(fused_name, {"no view"}, {"either ", fused_name, " or the pair ", pair});
  fail(has_first ? arguments[2] : arguments[1], {"no view"}, {"a view, or neither of the pair ", pair});
}

void ViewCheck::check_shape(char const* argument, flashmla_view const& view, std::initializer_list<Dim> dims) const {
  if (view.rank != static_cast<int>(dims.size()))
    fail(argument, {"rank ", std::to_string(view.rank)}, {"rank ", std::to_string(dims.size())});
  int i = 0;
  for (Dim const& dim : dims) {
    int64_t const size = view.size[i];
    std::string_view const open = dim.reason ? " (" : "", reason = dim.reason ? dim.reason : "", close = dim.reason ? ")" : "";
    if (size < 0) fail(argument, {"dim ", std::to_string(i), " = ", std::to_string(size)}, {"a size >= 0"});
    if (dim.size != kAnySize && size != dim.size)
      fail(argument, {"dim ", std::to_string(i), " = ", std::to_string(size)}, {std::to_string(dim.size), open, reason, close});
    ++i;
  }
}

void ViewCheck::check_strides(char const* argument, flashmla_view const& view, Layout layout) const {
  if (layout == kContiguous) {
    int64_t expected = 1;
    for (int i = view.rank - 1; i >= 0; --i) {
      if (view.size[i] != 1 && view.stride[i] != expected)
        fail(argument, {"stride ", std::to_string(i), " = ", std::to_string(view.stride[i])}, {std::to_string(expected), " (contiguous)"});
      expected *= view.size[i];
    }
    return;
  }
  int const last = view.rank - 1;
  if (layout == kRows && view.size[last] > 1 && view.stride[last] != 1)
    fail(argument, {"stride ", std::to_string(last), " = ", std::to_string(view.stride[last])}, {"1 (the last dimension is contiguous)"});
  for (int i = 0; i < view.rank; ++i)
    if (view.size[i] > 1 && view.stride[i] < 0)
      fail(argument, {"stride ", std::to_string(i), " = ", std::to_string(view.stride[i])}, {"a stride >= 0"});
}

void ViewCheck::check_memory(char const* argument, flashmla_view const& view) const {
  if (view.data == nullptr) fail(argument, {"null data"}, {"memory on ", device_name(device_)});
  size_t const align = dtype_bytes(view.dtype);
  size_t const rest = reinterpret_cast<uintptr_t>(view.data) % align;
  if (rest != 0)
    fail(argument, {"an address ", std::to_string(rest), " bytes past a multiple of ", std::to_string(align)},
         {"one aligned to its ", dtype_text(view.dtype), " elements"});
}

void ViewCheck::check_distinct_elements(char const* argument, flashmla_view const& view) const {
  std::array<int, 4> order{};
  int const count = sorted_dims(view, order);
  int64_t needed = 1;  // elements from the first to the last one of the dimensions so far
  for (int k = 0; k < count; ++k) {
    int const i = order[k];
    if (view.stride[i] < needed)
      fail(argument, {"stride ", std::to_string(i), " = ", std::to_string(view.stride[i])},
           {"at least ", std::to_string(needed), " (an output's elements must not share memory)"});
    needed += (view.size[i] - 1) * view.stride[i];
  }
}

Extent ViewCheck::extent(char const* argument, flashmla_view const& view) const {
  int64_t last = 0, bytes = 0;  // of the last element
  uintptr_t const begin = reinterpret_cast<uintptr_t>(view.data);
  uintptr_t end = 0;
  bool overflows = false;
  int widest = 0;  // the dimension that reaches farthest, for the message
  int64_t widest_step = -1;
  for (int i = 0; i < view.rank; ++i) {
    if (view.size[i] <= 1) continue;
    int64_t step = 0;
    if (__builtin_mul_overflow(view.size[i] - 1, view.stride[i], &step)) step = INT64_MAX;
    overflows |= step == INT64_MAX || __builtin_add_overflow(last, step, &last);
    if (step > widest_step) {
      widest = i;
      widest_step = step;
    }
  }
  overflows |= __builtin_mul_overflow(last, static_cast<int64_t>(dtype_bytes(view.dtype)), &bytes);
  overflows |= __builtin_add_overflow(bytes, static_cast<int64_t>(dtype_bytes(view.dtype)), &bytes);
  overflows |= __builtin_add_overflow(begin, static_cast<uintptr_t>(bytes), &end);
  if (overflows) {
    std::string const dim = std::to_string(widest);
    fail(argument,
         {"dim ", dim, " = ", std::to_string(view.size[widest]), " with stride ", dim, " = ", std::to_string(view.stride[widest]),
          ", past the last address"},
         {"a view inside 64-bit memory"});
  }
  return {argument, &view, begin, end};
}

void ViewCheck::remember(char const* argument, flashmla_view const& view, bool is_output) {
  Extent const e = extent(argument, view);
  if (is_output) outputs_[static_cast<size_t>(num_outputs_++)] = e;
  else inputs_[static_cast<size_t>(num_inputs_++)] = e;
}

void ViewCheck::input(char const* argument, flashmla_view const& view, flashmla_dtype dtype, Layout layout,
                      std::initializer_list<Dim> dims) {
  check_shape(argument, view, dims);
  if (view.dtype != dtype) fail(argument, {"dtype ", dtype_text(view.dtype)}, {dtype_text(dtype)});
  if (!same_device(view.device, device_)) fail(argument, {"a view on ", device_name(view.device)}, {device_name(device_)});
  if (!has_elements(view)) return;  // no address is ever formed
  check_strides(argument, view, layout);
  check_memory(argument, view);
  remember(argument, view, false);
}

void ViewCheck::output(char const* argument, flashmla_view const& view, flashmla_dtype dtype, Layout layout,
                       std::initializer_list<Dim> dims) {
  int const inputs = num_inputs_;
  input(argument, view, dtype, layout, dims);
  if (num_inputs_ == inputs) return;
  outputs_[static_cast<size_t>(num_outputs_++)] = inputs_[static_cast<size_t>(--num_inputs_)];
  check_distinct_elements(argument, view);
}

void ViewCheck::check_buffer(char const* argument, flashmla_view const& view, size_t bytes) const {
  if (is_absent(view)) fail(argument, {"no view"}, {std::to_string(bytes), " bytes on ", device_name(device_)});
  if (view.rank < 1 || view.rank > 4) fail(argument, {"rank ", std::to_string(view.rank)}, {"rank 1 to 4"});
  if (dtype_bytes(view.dtype) == 0) fail(argument, {"dtype ", dtype_text(view.dtype)}, {"a dtype of known size, such as UINT8"});
  if (!same_device(view.device, device_)) fail(argument, {"a view on ", device_name(view.device)}, {device_name(device_)});
  int64_t size = static_cast<int64_t>(dtype_bytes(view.dtype));
  bool overflows = false;
  for (int i = 0; i < view.rank; ++i) {
    if (view.size[i] < 0) fail(argument, {"dim ", std::to_string(i), " = ", std::to_string(view.size[i])}, {"a size >= 0"});
    overflows |= __builtin_mul_overflow(size, view.size[i], &size);
  }
  if (overflows) fail(argument, {"more than 2^63 bytes"}, {"a view inside 64-bit memory"});
  if (static_cast<uint64_t>(size) < bytes) fail(argument, {std::to_string(size), " bytes"}, {"at least ", std::to_string(bytes)});
  check_strides(argument, view, kContiguous);
  if (view.data == nullptr) fail(argument, {"null data"}, {"memory on ", device_name(device_)});
  constexpr uintptr_t kAlign = 256;
  uintptr_t const rest = reinterpret_cast<uintptr_t>(view.data) % kAlign;
  if (rest != 0)
    fail(argument, {"an address ", std::to_string(rest), " bytes past a multiple of ", std::to_string(kAlign)},
         {"one aligned to ", std::to_string(kAlign), " bytes"});
}

void ViewCheck::input_buffer(char const* argument, flashmla_view const& view, size_t bytes) {
  check_buffer(argument, view, bytes);
  if (has_elements(view)) remember(argument, view, false);
}

void ViewCheck::output_buffer(char const* argument, flashmla_view const& view, size_t bytes) {
  check_buffer(argument, view, bytes);
  if (has_elements(view)) remember(argument, view, true);
}

void ViewCheck::known_inputs(std::initializer_list<Known> views) {
  for (Known const& known : views)
    if (!is_absent(*known.view) && has_elements(*known.view)) remember(known.argument, *known.view, false);
}

void ViewCheck::known_outputs(std::initializer_list<Known> views) {
  for (Known const& known : views)
    if (!is_absent(*known.view) && has_elements(*known.view)) remember(known.argument, *known.view, true);
}

void ViewCheck::check_overlap() const {
  for (int i = 0; i < num_outputs_; ++i) {
    Extent const& out = outputs_[static_cast<size_t>(i)];
    for (int j = 0; j < num_inputs_; ++j)
      if (Extent const& in = inputs_[static_cast<size_t>(j)]; overlap(out, in))
        fail(out.argument, {"memory shared with ", in.argument}, {"an output apart from every other view"});
    for (int j = 0; j < i; ++j)
      if (Extent const& other = outputs_[static_cast<size_t>(j)]; overlap(out, other))
        fail(out.argument, {"memory shared with ", other.argument}, {"an output apart from every other view"});
  }
}

void* validate_buffer(char const* operation, char const* argument, flashmla_view const& buffer, size_t bytes, flashmla_device device) {
  ViewCheck check(operation, device);
  check.output_buffer(argument, buffer, bytes);
  return buffer.data;
}

}  // namespace flashmla::core
