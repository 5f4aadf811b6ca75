// Launcher of merge_splits: the columns a CTA takes follow from how many rows may have to be merged.
#include <algorithm>

#include "cuda/kernels/merge_splits.cuh"
#include "cuda/launch.hpp"

namespace flashmla::cuda {
namespace {

using Kernel = void (*)(DenseDecodeParams, int);

struct Row {
  int columns;
  Kernel kernel;
};

constexpr Row kRows[] = {
    // widest first
    {512, merge_splits::merge_splits_kernel<512>},
    {256, merge_splits::merge_splits_kernel<256>},
    {128, merge_splits::merge_splits_kernel<128>},
    {64, merge_splits::merge_splits_kernel<64>},
};

constexpr int64_t kFillingTasks = 256;  // two CTAs an SM; the widest columns that reach it win

}  // namespace

void prepare_merge_splits(flashmla_dtype) {
  for (Row const& row : kRows) load_kernel("plan", row.kernel);
}

void launch_merge_splits(flashmla_dtype out_dtype, DenseDecodeParams const& params, flashmla_stream stream) {
  DenseDecodeParams launched = params;
  int64_t const rows = static_cast<int64_t>(params.call.q_tokens) * params.h_q, tile_rows = kCtaRows * params.group;
  launched.out_dtype = out_dtype;
  launched.num_row_tiles = static_cast<int32_t>(core::ceil_div(rows, tile_rows));
  int64_t const item_rows = std::min(rows, tile_rows);
  // Every cut between workers splits at most one item, so items of many parts are few.
  int64_t const max_items =
      std::min<int64_t>(params.call.batch * launched.num_row_tiles, (params.max_workers - 1) / merge_splits::kFewSplits);
  Row const* row = kRows;
  while (row->columns > 64 && max_items * item_rows * (merge_splits::kRowColumns / row->columns) < kFillingTasks) ++row;
  if (params.max_workers < 3) return;
  int64_t const tasks = std::max<int64_t>(max_items, 1) * item_rows * (merge_splits::kRowColumns / row->columns);
  // A single item is merged without a loop over tasks.
  bool const is_single = params.call.batch == 1 && launched.num_row_tiles == 1;
  auto const grid = static_cast<unsigned>(is_single ? tasks : std::min<int64_t>(tasks, int64_t{2} * params.max_workers * params.group));
  launch_overlapped("decode", row->kernel, {grid, merge_splits::kThreads, 0, static_cast<cudaStream_t>(stream)}, launched,
                    static_cast<int>(item_rows));
}

}  // namespace flashmla::cuda
