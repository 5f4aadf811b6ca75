// When two results are equal enough, and what to say when they are not.
//
// The element check is upstream's: infinities and NaN stand in the same places; an element passes if its absolute or its
// relative error is within bounds; and the whole tensor has a small cosine difference. Ours adds a bound on the relative
// L2 error, which a wrong but small contribution cannot slip through.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace flashmla::conformance {

struct Tolerance {
  double abs, rel;    // of an element; either suffices
  double cosine;      // 1 - 2 sum(a r) / sum(a^2 + r^2)
  double l2;          // |a - r| / |r|, both over the whole tensor
  double always_abs;  // of an element, whatever `rel` says
};

/// For `out`, given the dtypes of q and of out; the coarser one rules. On a CPU with vdpbf16ps denormal numbers count as
/// zero, which is far below every bound here.
Tolerance out_tolerance(flashmla_dtype q_dtype, flashmla_dtype out_dtype);
Tolerance lse_tolerance(flashmla_device_kind device, flashmla_dtype q_dtype = FLASHMLA_BF16);

/// What one row may be off by: a share of its norm, and so much in each of its elements however small they are.
struct RowBound {
  double l2, abs;
};

/// Index of the first row of `width` elements that is off by more than `bound`, or -1. A row of many keys is small, so that
/// neither the bounds on elements nor sums over the tensor see much of it.
int64_t first_bad_row(std::span<double const> actual, std::span<double const> expected, size_t width, RowBound const& bound);

struct Comparison {
  bool ok = true;
  std::string text;  // what is wrong: how many elements, the first one's coordinate and values, the worst, the sums
  double worst_abs = 0;
  double relative_l2 = 0;
};

/// `coordinate` names element i, e.g. "out[0, 3, 17, 511]".
Comparison compare(std::span<double const> actual, std::span<double const> expected, Tolerance const& tolerance,
                   std::function<std::string(size_t)> const& coordinate);

/// Index of the first byte that differs, or -1.
int64_t first_difference(std::span<std::byte const> a, std::span<std::byte const> b);

}  // namespace flashmla::conformance
