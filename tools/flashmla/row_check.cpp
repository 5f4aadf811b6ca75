// One request's output against the reference: see row_check.hpp.
#include "tools/flashmla/row_check.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "conformance/oracle.hpp"

namespace flashmla::tools {
namespace {

/// Number `i` of `words`. BF16 is the upper half of a float; FP16 has 5 exponent bits with a bias of 15.
double number(DType dtype, std::vector<uint16_t> const& words, size_t i) {
  if (dtype == kFp32) {
    float value = 0;
    std::memcpy(&value, words.data() + 2 * i, sizeof value);
    return value;
  }
  uint16_t const code = words[i];
  if (dtype == kBf16) return std::bit_cast<float>(static_cast<uint32_t>(code) << 16);
  int const exponent = code >> 10 & 31, fraction = code & 1023;
  double const sign = (code & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

/// The sample as a batch of one, whose pages lie in order.
struct Call {
  Problem problem;
  DecodeArgs args;
  std::vector<int32_t> page_table;
};

Call call_of(RowSample const& sample) {
  int64_t const heads = sample.heads, q_tokens = sample.q_tokens, qk_dim = sample.type.qk_dim;
  int64_t const num_pages =
      static_cast<int64_t>(sample.pages.size()) / (sample.page_tokens * qk_dim * static_cast<int64_t>(sample.type.words()));
  DType const dtype = sample.type.dtype;
  Call call{Problem::decode(sample.heads, sample.type.format, 1), {}, std::vector<int32_t>(static_cast<size_t>(num_pages))};
  call.problem.page_tokens = sample.page_tokens;
  call.problem.max_q_tokens = q_tokens;
  call.problem.set_causal();
  std::iota(call.page_table.begin(), call.page_table.end(), 0);
  call.args.q = View::contiguous(sample.q.data(), dtype, kCpu, {1, q_tokens, heads, qk_dim});
  call.args.cache = View::contiguous(sample.pages.data(), dtype, kCpu, {num_pages, sample.page_tokens, qk_dim});
  call.args.page_table = View::contiguous(call.page_table.data(), kInt32, kCpu, {1, num_pages});
  call.args.lengths = Lengths(View::contiguous(&sample.kv_len, kInt32, kCpu, {1}), sample.q_tokens);
  call.args.out = View::contiguous(sample.out.data(), dtype, kCpu, {1, q_tokens, heads, sample.type.v_dim});
  call.args.lse = View::contiguous(sample.lse.data(), kFp32, kCpu, {1, heads, q_tokens});
  return call;
}

std::vector<reference::Row> spread_rows(RowSample const& sample, int32_t wanted) {
  std::vector<reference::Row> rows;
  int32_t const all = sample.q_tokens * sample.heads, count = std::min(all, wanted);
  for (int32_t i = 0; i < count; ++i) {
    auto const row = static_cast<int32_t>(static_cast<int64_t>(i) * all / count);
    rows.push_back({0, row / sample.heads, row % sample.heads});
  }
  return rows;
}

}  // namespace

double relative_error_bound(DType dtype) {
  if (dtype == kFp32) return 5e-6;
  return dtype == kFp16 ? 4e-4 : 2.8e-3;
}

RowError compare_with_reference(RowSample const& sample, int32_t num_rows) {
  Call const call = call_of(sample);
  core::Problem const problem = core::validate(call.problem);
  core::DecodeCall const decode = core::validate(problem, kCpu, call.args);
  auto const rows = spread_rows(sample, num_rows);
  auto const v_dim = static_cast<size_t>(sample.type.v_dim);
  std::vector<double> out(rows.size() * v_dim), lse(rows.size());
  conformance::make_reference_oracle()->decode(problem, decode, rows, out.data(), lse.data());

  double difference = 0, norm = 0;
  RowError error;
  for (size_t r = 0; r < rows.size(); ++r) {
    auto const first = static_cast<size_t>(rows[r].q_idx * sample.heads + rows[r].head) * v_dim;
    for (size_t d = 0; d < v_dim; ++d) {
      double const expected = out[r * v_dim + d], off = number(sample.type.dtype, sample.out, first + d) - expected;
      difference += off * off;
      norm += expected * expected;
    }
    float const got = sample.lse[static_cast<size_t>(rows[r].head * sample.q_tokens + rows[r].q_idx)];
    error.lse = std::isfinite(got) ? std::max(error.lse, std::abs(got - lse[r])) : std::numeric_limits<double>::infinity();
  }
  error.relative = std::isfinite(difference) ? std::sqrt(difference / std::max(norm, 1e-300)) : std::numeric_limits<double>::infinity();
  return error;
}

}  // namespace flashmla::tools
