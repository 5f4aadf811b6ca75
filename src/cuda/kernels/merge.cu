// Launcher and instances of merge: one a pair of dtypes.
#include <iterator>
#include <limits>
#include <string>

#include "core/planner.hpp"
#include "cuda/kernels/merge.cuh"
#include "cuda/kernels/merge.hpp"
#include "cuda/launch.hpp"

namespace flashmla::cuda {
namespace {

struct Row {
  flashmla_dtype partial_dtype, out_dtype;
  void (*kernel)(core::MergeCall, merge::LseUnits);
};

constexpr Row kRows[] = {
    {FLASHMLA_FP32, FLASHMLA_BF16, merge::merge_kernel<float, __nv_bfloat16>},
    {FLASHMLA_FP32, FLASHMLA_FP16, merge::merge_kernel<float, __half>},
    {FLASHMLA_FP32, FLASHMLA_FP32, merge::merge_kernel<float, float>},
    {FLASHMLA_BF16, FLASHMLA_BF16, merge::merge_kernel<__nv_bfloat16, __nv_bfloat16>},
    {FLASHMLA_BF16, FLASHMLA_FP16, merge::merge_kernel<__nv_bfloat16, __half>},
    {FLASHMLA_BF16, FLASHMLA_FP32, merge::merge_kernel<__nv_bfloat16, float>},
    {FLASHMLA_FP16, FLASHMLA_BF16, merge::merge_kernel<__half, __nv_bfloat16>},
    {FLASHMLA_FP16, FLASHMLA_FP16, merge::merge_kernel<__half, __half>},
    {FLASHMLA_FP16, FLASHMLA_FP32, merge::merge_kernel<__half, float>},
};

Row const& find_row(core::MergeCall const& call) {
  for (Row const& row : kRows)
    if (row.partial_dtype == call.partial_dtype && row.out_dtype == call.out_dtype) return row;
  throw core::Error(FLASHMLA_INTERNAL, "merge: out: got dtypes without a kernel, expected BF16, FP16 or FP32");
}

}  // namespace

void launch_merge(core::MergeCall const& call, flashmla_stream stream) {
  Row const& row = find_row(call);
  static LoadOnce loads[std::size(kRows)];
  loads[&row - kRows]("merge", row.kernel, call.device.index);
  bool const is_natural = call.lse_base == FLASHMLA_LSE_NATURAL;
  float const infinity = std::numeric_limits<float>::infinity();
  merge::LseUnits const units{is_natural ? device::kLog2E : 1.0F, is_natural ? device::kLn2 : 1.0F,
                              call.empty_row == FLASHMLA_EMPTY_LSE_MINUS_INF ? -infinity : infinity};
  int64_t const grid = core::ceil_div(call.tokens * call.heads, merge::kRowsPerCta);
  if (grid > std::numeric_limits<int32_t>::max())
    core::fail_unsupported("merge", "out", std::to_string(call.tokens * call.heads) + " rows", "fewer than 2^34 rows");
  launch_overlapped("merge", row.kernel, {static_cast<unsigned>(grid), merge::kThreads, 0, static_cast<cudaStream_t>(stream)}, call, units);
}

}  // namespace flashmla::cuda
