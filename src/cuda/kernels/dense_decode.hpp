// Launch interface of the dense decode kernels (BF16 or FP16 cache, 64-token pages, one KV head).
//
// A kernel row computes row tiles of 64 * group rows with `group` CTAs in step, each on 64 rows of the same tokens, so
// that the KV of a request is read from DRAM once. Worker w of the schedule is CTAs w * group .. w * group + group - 1.
// Whole items are written to `out` and `lse`; items that several workers share go to the workspace as partial results
// (normalised out, lse in log2 units, -inf when empty) for merge_splits, which follows on the stream.
#pragma once

#include <cstdint>
#include <string>

#include "core/calls.hpp"
#include "core/planner.hpp"

namespace flashmla::cuda {

inline constexpr int kCtaRows = 64;
inline constexpr int kTileTokens = 64;
inline constexpr int kMaxGroup = 4;

/// Everything about a call that both the decode and the merge kernel need; passed by value.
struct DenseDecodeParams {
  core::DecodeCall call;
  int32_t h_q;
  int32_t group;        // CTAs a worker; tile_rows = 64 * group
  int32_t max_workers;  // layout of the schedule; grid = max_workers * group
  int32_t causal;
  int64_t max_kv_len;      // 0: the table's width rules
  float scale_log2;        // scale * log2(e)
  float lse_factor;        // ln 2 for natural lse, 1 for base 2: lse = factor * lse_log2
  float empty_lse;         // of a row that sees no key
  int32_t num_row_tiles;   // set by the launch: of every request
  uint32_t h_q_inverse;    // set by the launch: ceil(2^32 / h_q), so that row / h_q is one multiplication
  int32_t out_dtype;       // set by the launch: flashmla_dtype
  int32_t q_is_tensor;     // set by the launch: q's rows are evenly spaced and aligned, one tensor map describes them
  int32_t q_is_aligned;    // set by the launch: 16-byte base and strides of q, vector loads
  int32_t out_is_aligned;  // set by the launch: 8-byte base and strides of out, vector stores
  void const* schedule;
  void* workspace;     // WorkspaceHeader
  float* partial_lse;  // [2 * max_workers, 64 * group], log2 units
  float* partial_out;  // [2 * max_workers, 64 * group, 512]
};

/// CTAs a worker for requests of up to `rows` = q_tokens * h_q rows: as many 64-row tiles in step as fill with least waste.
int choose_group(int64_t rows);

/// Sets the kernel's attributes; legal inside capture. Throws core::Error.
void prepare_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype out_dtype);
/// Enqueues the decode kernel with programmatic dependent launch; makes the cache's tensor map. Throws core::Error.
void launch_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype out_dtype, DenseDecodeParams const& params, flashmla_stream stream);
/// Registers, shared memory and threads of the kernel, for describe().
std::string describe_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype out_dtype);

/// Prepares and enqueues the merge of the items that several workers share (kernels/merge_splits.cu).
void prepare_merge_splits(flashmla_dtype out_dtype);
void launch_merge_splits(flashmla_dtype out_dtype, DenseDecodeParams const& params, flashmla_stream stream);

}  // namespace flashmla::cuda
