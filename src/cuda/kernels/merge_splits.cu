// Launcher and instances of merge_splits: one a dtype of out.
#include "cuda/kernels/merge_splits.cuh"
#include "cuda/launch.hpp"

namespace flashmla::cuda {
namespace {

struct Row {
  flashmla_dtype out_dtype;
  void (*kernel)(DenseDecodeParams);
};

constexpr Row kRows[] = {
    {FLASHMLA_BF16, merge_splits::merge_splits_kernel<__nv_bfloat16>},
    {FLASHMLA_FP16, merge_splits::merge_splits_kernel<__half>},
    {FLASHMLA_FP32, merge_splits::merge_splits_kernel<float>},
};

Row const& find_row(flashmla_dtype out_dtype) {
  for (Row const& row : kRows)
    if (row.out_dtype == out_dtype) return row;
  throw core::Error(FLASHMLA_INTERNAL, "decode: out: got a dtype without a merge kernel, expected BF16, FP16 or FP32");
}

}  // namespace

void prepare_merge_splits(flashmla_dtype out_dtype) { load_kernel("decode", find_row(out_dtype).kernel); }

void launch_merge_splits(flashmla_dtype out_dtype, DenseDecodeParams const& params, flashmla_stream stream) {
  auto const grid = static_cast<unsigned>(params.max_workers * params.group * merge_splits::kCtasPerSm);
  launch_overlapped("decode", find_row(out_dtype).kernel, {grid, merge_splits::kThreads, 0, static_cast<cudaStream_t>(stream)}, params);
}

}  // namespace flashmla::cuda
