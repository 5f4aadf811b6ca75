// What the roles of dense_decode.cuh share: stages, the shared-memory struct, barriers.
#pragma once

#include "cuda/kernels/dense_decode_partials.cuh"

namespace flashmla::cuda::dense_decode {

inline constexpr int kCopyBoxes = 2;  // latent boxes of one copy
inline constexpr int kCopies = 5;     // of a tile: four of latent columns, one of RoPE
inline constexpr int kRopeCopy = 4;
inline constexpr int kStages = 2;
inline constexpr int kConsumerThreads = kOutputThreads;
inline constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kConsumerRegisters = 232;
inline constexpr int kProducerRegisters = 40;

/// What TMA reads from; a kernel parameter.
struct TensorMaps {
  CUtensorMap latent, rope, q;
};

struct Shared {
  alignas(1024) uint8_t q[kLatentBoxes][kBoxBytes];
  alignas(1024) uint8_t kv[kStages][kBoxes][kBoxBytes];
  alignas(1024) uint8_t p[2][kBoxBytes];
  float row_max[2][kCtaRows];     // [warpgroup]: m after its latest tile
  float row_sum[2][2][kCtaRows];  // [part % 2][warpgroup]: its share of l
  int32_t valid[kStages];         // leading tokens of the tile that exist
  SharedItem items[2];            // [event]: items that this CTA has a part of; it has at most two parts that are not whole
  uint32_t arrival[2];            // [event]: their counters before this part arrived
  uint32_t can_merge;
  uint64_t full[kStages][kCopies];
  uint64_t empty[kStages][3];
  uint64_t p_ready[2];
  uint64_t p_free[2];
  uint64_t written[2];
  uint64_t arrived[2];
  uint64_t q_full;
  uint64_t q_free;
};
static_assert(sizeof(Shared) <= 232448);

static_assert(sizeof(MergeMemory) <= sizeof(Shared::kv));

enum Region : int { kLeft = 0, kRight = 1, kRope = 2 };  // copies 2 r and 2 r + 1, of RoPE only the first
enum NamedBarrier : int { kConsumersBarrier = kOutputBarrier, kWarpgroupBarrier = 2 };  // kWarpgroupBarrier + warpgroup

}  // namespace flashmla::cuda::dense_decode
