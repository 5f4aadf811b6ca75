// What the roles of scored/kernel.cuh share: the ring of stages, the shared-memory struct, barriers.
#pragma once

#include "cuda/kernels/dense_decode_consumer.cuh"
#include "cuda/kernels/dense_decode_partials.cuh"

namespace flashmla::cuda::dense_decode::scored {

inline constexpr int kLatent = 512;
inline constexpr int kBoxes = 9;      // of a tile: eight of latent columns, one of RoPE, which then holds P
inline constexpr int kSideBoxes = 4;  // latent boxes of a side; the right side's copy also brings RoPE
inline constexpr int kRopeBox = 8;
inline constexpr int kStages = 3;
inline constexpr int kSteps = kBoxes * 4;                            // k-steps of 16 columns of QK
inline constexpr int kSharedSteps = 5;                               // the first ones, whose Q lies in shared memory
inline constexpr int kRegisterSteps = kSteps - kSharedSteps;         // those whose Q lies in registers
inline constexpr int kSecondSideStep = kSideBoxes * 4;               // the first that needs the right side
inline constexpr int kStepBytes = kCtaRows * 32;                     // Q of a k-step in shared memory: [2][64 rows][16 bytes]
inline constexpr int kThreads = kOutputThreads + kWarpgroupThreads;  // the last warpgroup scores
inline constexpr int kScoreRegisters = 184;
inline constexpr int kOutputRegisters = 160;
inline constexpr int kVanished = 127;  // 2^-127 and less: what it multiplies is gone

/// What TMA reads from; a kernel parameter. A box of `latent` is a side's latent columns.
struct TensorMaps {
  CUtensorMap latent, rope, q, q_rope;
};

/// What is known of the tokens of a tile.
struct alignas(4) TileTokens {
  uint8_t valid;    // leading ones that are not past the end, or 0 where the tile is one page that does not exist
  uint8_t missing;  // a bit a page of several that does not exist; its tokens are zeros
};

/// Pages of a tile, where it has several.
__device__ __forceinline__ int32_t pages_of_tile(StartParams const& start) { return kTileTokens / start.page_tokens; }

struct Shared {
  alignas(1024) uint8_t kv[kStages][kBoxes][kBoxBytes];
  alignas(128) uint8_t q[kSharedSteps][kStepBytes];
  float row_max[kCtaRows];           // m and l at the end of a part
  float row_sum[kCtaRows];           //
  Part parts[2];                     // [part % 2]; request -1: there are no more
  uint8_t shift[kStages][kCtaRows];  // where has_moved: O is divided by 2^shift before the tile's PV
  uint8_t has_moved[kStages][4];     // [stage][warp of 16 rows]
  TileTokens tokens[kStages];
  uint32_t can_merge[2];   // [event]: their parts are in memory; 0: others merge
  uint32_t merges_all[2];  // [event]: this CTA is the last, and others would not wait
  uint64_t full[kStages][2];
  uint64_t empty[kStages][2];
  uint64_t qk_done[kStages];
  uint64_t p_ready[kStages];
  uint64_t mergeable[2];
  uint64_t announced;
  uint64_t stats_ready;
  uint64_t stats_free;
};
static_assert(sizeof(Shared) <= 232448);
static_assert(sizeof(MergeMemory) <= sizeof(Shared::kv));

enum NamedBarrier : int { kOutputsBarrier = kOutputBarrier, kSideBarrier = 2, kScoreBarrier = 4 };  // kSideBarrier + side

/// A place in the ring of stages: the stage, and the parity of its use.
struct RingPosition {
  uint32_t slot = 0, parity = 0;

  __device__ __forceinline__ void advance() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

/// 2^-shift; 0 from kVanished on.
__device__ __forceinline__ float shift_factor(int32_t shift) { return __int_as_float((kVanished - shift) << 23); }

}  // namespace flashmla::cuda::dense_decode::scored
