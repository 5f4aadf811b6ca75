// Order statistics of measured times.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace flashmla::tools {

/// The smallest value that at least `fraction` of all values do not exceed (nearest rank); 0 of nothing.
inline double percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  double const rank = std::ceil(fraction * static_cast<double>(values.size()));
  size_t const index = std::min(values.size() - 1, static_cast<size_t>(std::max(1.0, rank)) - 1);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index), values.end());
  return values[index];
}

inline double median(std::vector<double> const& values) { return percentile(values, 0.5); }
inline double sum(std::vector<double> const& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
inline double mean(std::vector<double> const& values) { return values.empty() ? 0 : sum(values) / static_cast<double>(values.size()); }
inline double smallest(std::vector<double> const& values) { return values.empty() ? 0 : *std::min_element(values.begin(), values.end()); }
inline double largest(std::vector<double> const& values) { return values.empty() ? 0 : *std::max_element(values.begin(), values.end()); }

}  // namespace flashmla::tools
