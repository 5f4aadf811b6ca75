#include "reference/merge.hpp"

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "reference/scalar.hpp"

namespace flashmla::reference {
namespace {

void merge_row(core::MergeCall const& call, int64_t token, int64_t head) {
  double const unit = call.lse_base == FLASHMLA_LSE_BASE_2 ? std::numbers::ln2 : 1.0;  // of an lse, in natural ones
  double const infinity = std::numeric_limits<double>::infinity();
  std::vector<double> part_lse;  // [num_parts], natural
  double max_lse = -infinity;
  for (int64_t part = 0; part < call.num_parts; ++part) {
    int64_t const index = part * call.partial_lse_stride[0] + token * call.partial_lse_stride[1] + head * call.partial_lse_stride[2];
    part_lse.push_back(call.partial_lse[index] * unit);
    if (!std::isinf(part_lse.back())) max_lse = std::fmax(max_lse, part_lse.back());
  }

  double sum = 0;
  for (double const lse : part_lse)
    if (!std::isinf(lse)) sum += std::exp(lse - max_lse);
  double const lse = max_lse + std::log(sum);
  double const sink_factor = call.sink ? 1 / (1 + std::exp(call.sink[head] - lse)) : 1;

  std::vector<double> out(static_cast<size_t>(call.v_dim), 0.0);
  for (int64_t part = 0; part < call.num_parts; ++part) {
    if (std::isinf(part_lse[static_cast<size_t>(part)])) continue;
    double const weight = std::exp(part_lse[static_cast<size_t>(part)] - lse) * sink_factor;
    int64_t const base = part * call.partial_out_stride[0] + token * call.partial_out_stride[1] + head * call.partial_out_stride[2];
    for (int64_t d = 0; d < call.v_dim; ++d) out[static_cast<size_t>(d)] += weight * load(call.partial_dtype, call.partial_out, base + d);
  }

  for (int64_t d = 0; d < call.v_dim; ++d)
    store(call.out_dtype, call.out, token * call.out_stride[0] + head * call.out_stride[1] + d, out[static_cast<size_t>(d)]);
  if (!call.lse) return;
  double const empty = call.empty_row == FLASHMLA_EMPTY_LSE_PLUS_INF ? infinity : -infinity;
  call.lse[token * call.lse_stride[0] + head * call.lse_stride[1]] = static_cast<float>(sum == 0 ? empty : lse / unit);
}

}  // namespace

void merge(core::MergeCall const& call) {
  for (int64_t token = 0; token < call.tokens; ++token)
    for (int64_t head = 0; head < call.heads; ++head) merge_row(call, token, head);
}

}  // namespace flashmla::reference
