// What the roles of dense_decode.cuh share: stages, the shared-memory struct, barriers.
#pragma once

#include "cuda/kernels/dense_decode_partials.cuh"
#include "cuda/tile/matrix_descriptor.hpp"

namespace flashmla::cuda::dense_decode {

template <int kLatent>
inline constexpr int kHalfBoxes = kLatentBoxes<kLatent> / 2;  // latent boxes of a half
template <int kLatent>
inline constexpr int kCopyBoxes = kHalfBoxes<kLatent> / 2;  // latent boxes of one copy
inline constexpr int kCopies = 5;                           // of a tile: four of latent columns, one of RoPE
inline constexpr int kRopeCopy = 4;
inline constexpr int kStages = 2;
inline constexpr int kConsumerThreads = kOutputThreads;
inline constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
template <int kLatent>
inline constexpr int kConsumerRegisters = kLatent == 512 ? 224 : 200;
template <int kLatent>
inline constexpr int kProducerRegisters = 3 * 168 - 2 * kConsumerRegisters<kLatent>;

/// Warps that bring KV.
template <Paging kPaging>
inline constexpr int kLoaders = kPaging == Paging::kTiles ? 1 : 4;

/// What TMA reads from; a kernel parameter.
struct TensorMaps {
  CUtensorMap latent, rope, q;
};

/// The same for every geometry: of 256 latent columns, q's first four boxes are used, and the first five of a stage.
struct Shared {
  alignas(1024) uint8_t q[kLatentBoxes<kMostLatent>][kBoxBytes];
  alignas(1024) uint8_t kv[kStages][kMostBoxes][kBoxBytes];
  alignas(1024) uint8_t p[2][kBoxBytes];
  float row_max[2][kCtaRows];     // [warpgroup]: m after the latest of its tiles that may have moved it
  uint32_t has_moved[2][4];       // [warpgroup][warp]: the latest tile may have moved m in the warp's rows; the other warpgroup clears it
  float row_sum[2][2][kCtaRows];  // [part % 2][warpgroup]: its share of l
  Part parts[2];                  // [part % 2]; request -1: there are no more
  int32_t valid[kStages];         // leading tokens of the tile, or none where it is one page that does not exist
  uint16_t holes[kStages][4];     // a bit a token whose page does not exist, where a tile may have several pages
  SharedItem items[2];            // [event]: items that this CTA has a part of; it has at most two parts that are not whole
  uint32_t can_merge[2];          // [event]: their parts are in memory; 0: others merge
  uint32_t merges_all[2];         // [event]: this CTA is the last, and others would not wait
  uint64_t full[kStages][kCopies];
  uint64_t empty[kStages][3];
  uint64_t p_ready[2];
  uint64_t p_free[2];
  uint64_t stored[2];
  uint64_t mergeable[2];
  uint64_t announced;
  uint64_t q_full;
  uint64_t q_free;
  uint32_t takes_item[2];  // [part % 2], of the first of two parts: this CTA adds the other, which is in memory
};
static_assert(sizeof(Shared) <= 232448);

static_assert(sizeof(MergeMemory) <= sizeof(Shared::kv));

/// How the latent columns of a tile lie in its stage: halves of kHalfBoxes boxes, 8 KB each, and behind them RoPE, a plain tile.
template <Paging kPaging, int kLatent>
struct StageLayout {
  static constexpr uint32_t kNextBox = kBoxBytes, kNextAtom = kAtomBytes;  // a box after the other
};
template <int kLatent>
struct StageLayout<Paging::kBoxes, kLatent> {
  static constexpr uint32_t kNextBox = kAtomBytes, kNextAtom = kHalfBoxes<kLatent> * kAtomBytes;  // eight tokens of a half after the other
};

enum Region : int { kLeft = 0, kRight = 1, kRope = 2 };                                 // copies 2 r and 2 r + 1, of RoPE only the first
enum NamedBarrier : int { kConsumersBarrier = kOutputBarrier, kWarpgroupBarrier = 2 };  // kWarpgroupBarrier + warpgroup

}  // namespace flashmla::cuda::dense_decode
