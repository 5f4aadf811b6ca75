// What the roles of transposed/kernel.cuh share: the shared-memory struct, barriers, what a thread holds.
#pragma once

#include "cuda/kernels/dense_decode_consumer.cuh"

namespace flashmla::cuda::dense_decode::transposed {

inline constexpr int kRows = static_cast<int>(kTransposedRows);  // of a call that a CTA takes: the N of every product
inline constexpr int kLatent = 512;
inline constexpr int kBoxes = 9;      // of a tile: eight of latent columns, one of RoPE
inline constexpr int kSideBoxes = 4;  // latent boxes of a side
inline constexpr int kRopeBox = 8;
inline constexpr int kStages = 2;
inline constexpr int kLoaders = 3;
inline constexpr int kThreads = kOutputThreads + kLoaders * 32;  // the last warps load
inline constexpr int kStagedColumns = kLatent + 8;               // 16 bytes more than a row: rows lie in other banks
inline constexpr int kSideColumns = kLatent / 2;
inline constexpr int kScores = kRows / 2;      // accumulators of a thread for 64 tokens or columns
inline constexpr int kThreadRows = kRows / 4;  // of whose scores a thread finishes one token

/// What TMA reads from; a kernel parameter. A copy of `latent` is a side's columns; of `q`, kRows rows.
struct TensorMaps {
  CUtensorMap latent, rope, q, q_rope;
};

enum Copy : int { kLeft = 0, kRight = 1, kRope = 2 };

/// Sums over parts on their way from warp to warp: of the eight units of a cell (cells.cuh).
struct MergeSums {
  float max[kOutputWarps][8], sum[kOutputWarps][8];
  float values[kOutputWarps][8][8];  // [warp][value][unit]
};

struct Shared {
  alignas(1024) uint8_t kv[kStages][kBoxes][kBoxBytes];
  alignas(1024) uint8_t q[2][kBoxes][kRows * kSwizzleRowBytes];  // [part % 2]
  alignas(1024) uint8_t p[kRows * kSwizzleRowBytes];             // [row][token], swizzled
  float4 exchanged[2][kWarpgroupThreads];                        // [warpgroup that takes them]: the other's share of its scores
  alignas(16) uint16_t staged[kRows][kStagedColumns];            // rows on their way to memory
  MergeSums merge;
  float4 warp_max[kOutputWarps][4];  // of a tile's scores, and
  float4 warp_sum[kOutputWarps][4];  // at the end of a part shares of l (of a chunk then, largest |o|): of lane % 4 the thread's four rows
  Part parts[2];                     // [part % 2]; request -1: there are no more
  SharedItem items[2];               // [event]: items that this CTA has a part of
  int32_t valid[kStages];            // leading tokens of the tile, or 0 where its page does not exist
  uint32_t num_events;               // once all parts are known
  uint32_t clears[2];                // [event]: this CTA merges its slice and clears it; 0: it leaves it to others
  uint32_t rescues[2];               // [event]: others have left slices to this CTA
  uint64_t full[kStages][3];
  uint64_t empty[kStages];
  uint64_t announced[2];
  uint64_t part_free[2];
  uint64_t q_full[2];
  uint64_t q_free[2];
  uint64_t stored[2];
  uint64_t counted[2];
  uint64_t merged[2];
  uint64_t closed;
};
static_assert(sizeof(Shared) <= 232448);

/// What a thread of the eight multiplying warps is.
struct Multiplier {
  int32_t side;    // warpgroup: 0 left, 1 right
  int32_t thread;  // in the warpgroup
  int32_t lane;
  int32_t warp;  // of the eight

  /// The row that the thread's `i`-th is.
  [[nodiscard]] __device__ __forceinline__ int32_t row(int i) const { return i / 2 * 8 + lane % 4 * 2 + i % 2; }
  /// The token of a tile whose scores it finishes.
  [[nodiscard]] __device__ __forceinline__ int32_t token() const { return thread / 32 * 16 + lane / 4 + 8 * side; }
};

/// A part's place among the CTA's.
struct PartPlace {
  uint32_t buffer;  // of Q
  uint32_t tiles;   // of the parts before
};

/// What a thread keeps over a part: O's columns 256 side + 64 block + .. of all rows, and m, l of its rows.
struct State {
  float o[kSideBoxes][kScores];
  float max[kThreadRows];  // m, log2 units
  float sum[kThreadRows];  // its share of l: of its tokens
  int32_t visible[kThreadRows], least_visible;
};

/// Of the thread's `i`-th row, value v = 2 block + half: column 256 side + 64 block + 16 (warp % 4) + 8 half + lane / 4.
__device__ __forceinline__ float value_of(State const& state, int i, int v) {
  return state.o[v / 2][accumulator_index(i / 2, v % 2, i % 2)];
}

/// The largest |o| of the thread's `i`-th row.
__device__ __forceinline__ float largest_value(State const& state, int i) {
  float const a = fmaxf(fmaxf(fabsf(value_of(state, i, 0)), fabsf(value_of(state, i, 1))),
                        fmaxf(fabsf(value_of(state, i, 2)), fabsf(value_of(state, i, 3))));
  float const b = fmaxf(fmaxf(fabsf(value_of(state, i, 4)), fabsf(value_of(state, i, 5))),
                        fmaxf(fabsf(value_of(state, i, 6)), fabsf(value_of(state, i, 7))));
  return fmaxf(a, b);
}

/// lse and 1 / l of a row.
struct RowEnd {
  float lse_log2;  // -inf: the row saw no key
  float inverse;   // 0 then
};
__device__ __forceinline__ RowEnd row_end(float max, float sum) {
  bool const is_empty = !(sum > 0.0F);
  return {is_empty ? -INFINITY : max + log2f(sum), is_empty ? 0.0F : __fdividef(1.0F, sum)};
}

struct Largest {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

/// Combines what the eight lanes have that share the thread's rows.
template <class Combine>
__device__ __forceinline__ void over_lanes(float (&values)[kThreadRows], Combine const& combine) {
#pragma unroll
  for (int step = 4; step < 32; step *= 2)
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) values[i] = combine(values[i], __shfl_xor_sync(0xffffffffU, values[i], step));
}

/// The same over all eight warps, or `count` from `first` on: a lane reads what one warp has. Shared memory moves 128 bytes a cycle: each
/// lane reading all warps' took 500.
template <class Combine>
__device__ __forceinline__ void over_warps(float (&values)[kThreadRows], float4 (&memory)[kOutputWarps][4], Multiplier const& me,
                                           Combine const& combine, int32_t first = 0, int32_t count = kOutputWarps) {
  if (me.lane < 4) memory[me.warp][me.lane] = make_float4(values[0], values[1], values[2], values[3]);
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
  float4 const of_warp = memory[first + me.lane / 4 % count][me.lane % 4];
  values[0] = of_warp.x, values[1] = of_warp.y, values[2] = of_warp.z, values[3] = of_warp.w;
  over_lanes(values, combine);
}

}  // namespace flashmla::cuda::dense_decode::transposed
