// Checks of the views of one call: rank, dtype, shape, strides, device, null, alignment, and that no output overlaps
// another view. One ViewCheck serves one call; it lives on the stack and builds text only when something is wrong, for
// a run is called once a layer and step and should cost the host about a microsecond.
#pragma once

#include <flashmla/flashmla.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace flashmla::core {

/// True for a view that the caller left out.
inline bool is_absent(flashmla_view const& view) { return view.rank == 0 && view.data == nullptr; }

/// An expected dimension. `reason` explains where the number comes from; it may be null.
struct Dim {
  int64_t size;
  char const* reason = nullptr;
};
inline constexpr int64_t kAnySize = -1;

/// The addresses from the first to the last byte of a view; empty when it has no element.
struct Extent {
  char const* argument;
  flashmla_view const* view;
  uintptr_t begin, end;
};

/// A view by its name in messages.
struct Known {
  char const* argument;
  flashmla_view const* view;
};

class ViewCheck {
 public:
  enum Layout { kContiguous, kRows, kStrided };  // kRows: last stride 1, others free; kStrided: all free

  ViewCheck(char const* operation, flashmla_device device) : operation_(operation), device_(device) {}

  /// Checks a view that is only read, or one that is written; both remember its extent.
  void input(char const* argument, flashmla_view const& view, flashmla_dtype dtype, Layout layout, std::initializer_list<Dim> dims);
  void output(char const* argument, flashmla_view const& view, flashmla_dtype dtype, Layout layout, std::initializer_list<Dim> dims);
  /// A caller-owned buffer of bytes; see validate_buffer.
  void input_buffer(char const* argument, flashmla_view const& view, size_t bytes);
  void output_buffer(char const* argument, flashmla_view const& view, size_t bytes);

  /// Remember views that were checked before.
  void known_inputs(std::initializer_list<Known> views);
  void known_outputs(std::initializer_list<Known> views);

  /// No output may share a byte with any other view. Call it last.
  void check_overlap() const;

  void require(char const* argument, flashmla_view const& view, char const* expected) const;
  /// Throws when a view is present that the problem has no use for.
  void refuse(char const* argument, flashmla_view const& view, char const* nearest) const;
  /// Exactly one of a fused view and a pair must be present; returns true for the fused one.
  bool choose_fused(std::array<char const*, 3> const& arguments, flashmla_view const& fused, flashmla_view const& first,
                    flashmla_view const& second) const;

  [[noreturn]] void fail(char const* argument, std::initializer_list<std::string_view> got,
                         std::initializer_list<std::string_view> expected) const;

 private:
  void check_shape(char const* argument, flashmla_view const& view, std::initializer_list<Dim> dims) const;
  void check_strides(char const* argument, flashmla_view const& view, Layout layout) const;
  void check_memory(char const* argument, flashmla_view const& view) const;
  void check_distinct_elements(char const* argument, flashmla_view const& view) const;
  void check_buffer(char const* argument, flashmla_view const& view, size_t bytes) const;
  Extent extent(char const* argument, flashmla_view const& view) const;
  void remember(char const* argument, flashmla_view const& view, bool is_output);

  static constexpr int kMaxViews = 16;
  char const* operation_;
  flashmla_device device_;
  std::array<Extent, kMaxViews> inputs_;  // the first num_inputs_ are set; clearing a kilobyte a call would be seen
  std::array<Extent, kMaxViews> outputs_;
  int num_inputs_ = 0, num_outputs_ = 0;
};

}  // namespace flashmla::core
