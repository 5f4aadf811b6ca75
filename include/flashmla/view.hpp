// Devices, element types and views: how memory that somebody else owns is described to the library.
#pragma once

#include <flashmla/flashmla.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>

namespace flashmla {

using DType = flashmla_dtype;
inline constexpr DType kBf16 = FLASHMLA_BF16, kFp16 = FLASHMLA_FP16, kFp32 = FLASHMLA_FP32;
inline constexpr DType kInt32 = FLASHMLA_INT32, kInt64 = FLASHMLA_INT64, kUint8 = FLASHMLA_UINT8;

using Device = flashmla_device;
inline constexpr Device kCpu = {FLASHMLA_CPU, 0};
constexpr Device cuda_device(int32_t ordinal) noexcept { return {FLASHMLA_CUDA, ordinal}; }

/// A cudaStream_t; null is the default stream. The CPU backend ignores it and is synchronous.
using Stream = flashmla_stream;

/// A strided tensor of up to 4 dimensions, not owned; sizes and strides in elements. A default-made View is absent.
///
/// The memory must stay valid until the work enqueued on it has finished. Views of inputs may be made from pointers to
/// const: the library writes to outputs only.
struct View : flashmla_view {
  View() noexcept : flashmla_view{} {}

  /// Row-major, without gaps: View::contiguous(q, kBf16, kCpu, {batch, q_tokens, h_q, 576}). Throws std::length_error
  /// for more than 4 dimensions.
  static View contiguous(void const* data, DType dtype, Device device, std::initializer_list<int64_t> size) {
    View view = shaped(data, dtype, device, size);
    uint64_t stride = 1;  // unsigned: sizes beyond memory wrap, and the library refuses the view
    for (int i = view.rank - 1; i >= 0; --i) {
      view.stride[i] = static_cast<int64_t>(stride);
      stride *= static_cast<uint64_t>(view.size[i]);
    }
    return view;
  }

  /// Any strides >= 0, one for each dimension. Throws std::length_error when they differ in number.
  static View strided(void const* data, DType dtype, Device device, std::initializer_list<int64_t> size,
                      std::initializer_list<int64_t> stride) {
    if (stride.size() != size.size()) throw std::length_error("View::strided: stride: its length differs from that of size");
    View view = shaped(data, dtype, device, size);
    std::copy(stride.begin(), stride.end(), view.stride);
    return view;
  }

  /// Untyped memory, for schedules and workspaces.
  static View bytes(void* data, size_t num_bytes, Device device) {
    return contiguous(data, kUint8, device, {static_cast<int64_t>(num_bytes)});
  }

  [[nodiscard]] bool is_absent() const noexcept { return rank == 0 && data == nullptr; }

 private:
  static View shaped(void const* data, DType dtype, Device device, std::initializer_list<int64_t> size) {
    if (size.size() > 4) throw std::length_error("View: size: more than 4 dimensions");
    View view;
    view.data = const_cast<void*>(data);
    view.dtype = dtype;
    view.rank = static_cast<int32_t>(size.size());
    view.device = device;
    std::copy(size.begin(), size.end(), view.size);
    return view;
  }
};

}  // namespace flashmla
