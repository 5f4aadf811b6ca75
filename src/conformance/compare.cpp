#include "conformance/compare.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>

namespace flashmla::conformance {
namespace {

/// Scores of deviation 4 carry an absolute error of some 1e-6 into the exponent, and so the weights a relative one.
constexpr double kFp32L2 = 5e-6;
constexpr double kUnbounded = std::numeric_limits<double>::infinity();

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

/// NaN or not, and equal if infinite.
bool same_kind(double a, double r) {
  if (std::isnan(a) || std::isnan(r)) return std::isnan(a) && std::isnan(r);
  if (std::isinf(a) || std::isinf(r)) return a == r;
  return true;
}

/// Running sums over the finite elements.
struct Sums {
  double product = 0, squares = 0, error2 = 0, expected2 = 0;

  void add(double a, double r) {
    product += a * r;
    squares += a * a + r * r;
    error2 += (a - r) * (a - r);
    expected2 += r * r;
  }
  [[nodiscard]] double cosine() const { return squares == 0 ? 0 : 1 - 2 * product / squares; }
  [[nodiscard]] double relative_l2() const { return error2 == 0 ? 0 : std::sqrt(error2 / expected2); }
};

}  // namespace

Tolerance out_tolerance(flashmla_dtype q_dtype, flashmla_dtype out_dtype) {
  if (q_dtype == FLASHMLA_FP32 && out_dtype == FLASHMLA_FP32) return {1e-6, 1e-4, 1e-10, kFp32L2, kUnbounded};
  bool const coarse = q_dtype == FLASHMLA_BF16 || out_dtype == FLASHMLA_BF16;
  return {8e-4, 2.01 / 128, 5e-6, coarse ? 2.8e-3 : 4e-4, kUnbounded};
}

Tolerance lse_tolerance(flashmla_device_kind device, flashmla_dtype q_dtype) {
  double const cpu_abs = q_dtype == FLASHMLA_FP32 ? 2e-5 : 1e-4;
  return {1e-6, 8.01 / 65536, kUnbounded, kUnbounded, device == FLASHMLA_CPU ? cpu_abs : 1e-5};
}

Comparison compare(std::span<double const> actual, std::span<double const> expected, Tolerance const& tolerance,
                   std::function<std::string(size_t)> const& coordinate) {
  Comparison result;
  Sums sums;
  size_t num_bad = 0, first_bad = 0, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    double const a = actual[i], r = expected[i];
    bool bad = !same_kind(a, r);
    if (std::isfinite(a) && std::isfinite(r)) {
      double const error = std::abs(a - r);
      bad = error > tolerance.always_abs || (error > tolerance.abs && error / (std::abs(r) + 1e-6) > tolerance.rel);
      if (error > result.worst_abs) result.worst_abs = error, worst = i;
      sums.add(a, r);
    }
    if (bad && num_bad++ == 0) first_bad = i;
  }
  result.relative_l2 = sums.relative_l2();

  auto const at = [&](size_t i) { return coordinate(i) + " is " + number(actual[i]) + ", expected " + number(expected[i]); };
  if (num_bad > 0)
    result.text = std::to_string(num_bad) + " of " + std::to_string(expected.size()) + " elements differ; first " + at(first_bad) +
                  "; worst " + at(worst);
  auto const check_sum = [&](char const* name, double value, double bound) {
    if (value <= bound) return;
    result.text += (result.text.empty() ? "" : "; ") + std::string(name) + " is " + number(value) + ", expected at most " + number(bound);
  };
  check_sum("cosine difference", sums.cosine(), tolerance.cosine);
  check_sum("relative L2 error", result.relative_l2, tolerance.l2);
  if (!expected.empty() && !result.text.empty() && num_bad == 0) result.text += "; worst element " + at(worst);
  result.ok = result.text.empty();
  return result;
}

int64_t first_bad_row(std::span<double const> actual, std::span<double const> expected, size_t width, RowBound const& bound) {
  double const floor = bound.abs * std::sqrt(static_cast<double>(width));
  for (size_t row = 0; row * width < expected.size(); ++row) {
    Sums sums;
    for (size_t i = row * width; i < (row + 1) * width; ++i) sums.add(actual[i], expected[i]);
    if (std::sqrt(sums.error2) > bound.l2 * std::sqrt(sums.expected2) + floor) return static_cast<int64_t>(row);
  }
  return -1;
}

int64_t first_difference(std::span<std::byte const> a, std::span<std::byte const> b) {
  auto const [at, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return at == a.end() && other == b.end() ? -1 : at - a.begin();
}

}  // namespace flashmla::conformance
