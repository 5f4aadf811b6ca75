// The LSE merge of one row: out = sum_i 2^(lse_i - lse) out_i, lse = log2 sum_i 2^lse_i, in the order of the parts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

/// One partial result. lse +-inf: the part is empty and its row is not read.
struct PartialRow {
  double lse_log2;
  void const* row;  // [v_dim]
};

struct MergedRow {
  void* out;  // [v_dim]
  Storage storage;
  int64_t v_dim;
  double sink;  // log2 domain, -inf for none
};

inline double sink_log2(float const* sink, int64_t head) {
  return sink == nullptr ? -std::numeric_limits<double>::infinity() : static_cast<double>(sink[head]) * std::numbers::log2e;
}

/// Writes the row and returns its lse (log2 domain, without the sink), -inf when every part is empty. `part_of` maps
/// [0, num_parts) to PartialRow.
template <class PartOf>
double merge_row(Kernels const& kernels, int64_t num_parts, Storage in_storage, PartOf const& part_of, MergedRow const& target) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  double max_lse = kNone, sum = 0;
  for (int64_t i = 0; i < num_parts; ++i) {
    double const lse = part_of(i).lse_log2;
    if (!std::isinf(lse)) max_lse = std::max(max_lse, lse);
  }
  for (int64_t i = 0; i < num_parts; ++i) {
    double const lse = part_of(i).lse_log2;
    if (!std::isinf(lse)) sum += std::exp2(lse - max_lse);
  }
  bool const is_empty = sum == 0;
  double const scale = is_empty ? 0.0 : 1.0 / (sum + std::exp2(target.sink - max_lse));

  constexpr int64_t kStep = 512;  // numbers summed at a time
  float row[kStep];
  int64_t const in_bytes = in_storage == Storage::kFp32 ? 4 : 2, out_bytes = target.storage == Storage::kFp32 ? 4 : 2;
  for (int64_t at = 0; at < target.v_dim; at += kStep) {
    int32_t const n = static_cast<int32_t>(std::min(kStep, target.v_dim - at));
    std::memset(row, 0, sizeof row);
    for (int64_t i = 0; i < num_parts; ++i) {
      PartialRow const part = part_of(i);
      double const weight = std::isinf(part.lse_log2) ? 0.0 : std::exp2(part.lse_log2 - max_lse) * scale;
      if (weight != 0) kernels.add_row(row, static_cast<char const*>(part.row) + at * in_bytes, in_storage, static_cast<float>(weight), n);
    }
    kernels.store_row(static_cast<char*>(target.out) + at * out_bytes, target.storage, row, n);
  }
  return is_empty ? kNone : max_lse + std::log2(sum);
}

}  // namespace flashmla::cpu
