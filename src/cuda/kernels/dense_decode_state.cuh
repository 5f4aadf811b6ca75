// What the roles of dense_decode.cuh share: sizes, the shared-memory struct, parts, faults.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/parts.hpp"
#include "core/schedule.hpp"
#include "core/visible.hpp"
#include "core/workspace.hpp"
#include "cuda/kernels/dense_decode.hpp"
#include "cuda/tile/swizzle.hpp"

namespace flashmla::cuda::dense_decode {

inline constexpr int kLatent = 512;
inline constexpr int kQkDim = 576;
inline constexpr int kBoxBytes = 64 * kSwizzleRowBytes;  // 64 tokens or rows x 64 columns
inline constexpr int kLatentBoxes = 8;
inline constexpr int kBoxes = 9;
inline constexpr int kCopyBoxes = 2;  // latent boxes of one copy
inline constexpr int kCopies = 5;     // of a tile: four of latent columns, one of RoPE
inline constexpr int kRopeCopy = 4;
inline constexpr int kStages = 2;
inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kConsumerThreads = 2 * kWarpgroupThreads;
inline constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kConsumerRegisters = 240;
inline constexpr int kProducerRegisters = 24;
inline constexpr float kLazyMaximum = 8.0F;  // log2 units; P stays below 2^8

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
  uint32_t arrival[2];            // [part % 2]: what claim_pair found
  uint32_t* publish[2];           // [event]: counter of a pair whose first half this CTA has written; null for none
  uint64_t full[kStages][kCopies];
  uint64_t empty[kStages][3];
  uint64_t p_ready[2];
  uint64_t p_free[2];
  uint64_t published[2];
  uint64_t q_full;
  uint64_t q_free;
};
static_assert(sizeof(Shared) <= 232448);

enum Region : int { kLeft = 0, kRight = 1, kRope = 2 };
enum NamedBarrier : int { kConsumersBarrier = 1, kWarpgroupBarrier = 2 };  // kWarpgroupBarrier + warpgroup

/// A part as one CTA sees it, with bounds from the call's own lengths.
struct Part {
  int32_t request;
  int32_t row_begin;  // of this CTA, among the request's rows
  int32_t first_tile;
  int32_t num_tiles;  // may be 0
  int32_t kv_len;
  int32_t split;  // index among the parts of the item
  bool is_whole;  // the item's only part
  bool is_pair;   // one of two: the two CTAs merge between themselves
};

/// The parts of this CTA's worker that have rows for it; every role walks the same ones.
class CtaWalk {
 public:
  __device__ __forceinline__ CtaWalk(DenseDecodeParams const& params, core::WorkerBegin const (&begins)[3], int32_t num_row_tiles)
      : params_(params),
        walk_(begins[0], begins[1], num_row_tiles, kTileTokens),
        end_(begins[1]),
        after_(begins[2]),
        first_tile_(begins[0].tile) {}

  __device__ __forceinline__ int32_t request() const { return walk_.request(); }
  __device__ __forceinline__ int32_t first_tile() const { return first_tile_; }

  /// The table's entry `ahead` tiles into the first part, before its length is known; junk past the length.
  __device__ __forceinline__ int32_t peek_page(int32_t ahead) const {
    if (!walk_.has_item() || first_tile_ + ahead >= params_.call.table_pages) return 0;
    return __ldg(params_.call.page_table + walk_.request() * params_.call.page_table_stride + first_tile_ + ahead);
  }

  /// False at the end.
  __device__ __forceinline__ bool next(Part& part) {
    while (walk_.has_item()) {
      int64_t const limit = core::length_limit(params_.call.table_pages, kTileTokens, params_.max_kv_len);
      part.kv_len = core::clamp_length(params_.call.kv_len[walk_.request()], limit);
      core::Part const found = walk_.part(part.kv_len);
      walk_.advance();
      part.request = found.request;
      part.row_begin = (found.row_tile * params_.group + static_cast<int32_t>(blockIdx.x)) * kCtaRows;
      part.first_tile = found.first_token / kTileTokens;
      part.num_tiles = (found.last_token + kTileTokens - 1) / kTileTokens - part.first_tile;
      if (found.last_token == found.first_token) part.num_tiles = 0;
      part.split = found.split;
      part.is_whole = found.is_whole;
      part.is_pair = !found.is_whole && found.split < 2 && !continues(found.split == 0 ? after_ : end_, found);
      if (part.row_begin < params_.call.q_tokens * params_.h_q) return true;
    }
    return false;
  }

 private:
  static __device__ __forceinline__ bool continues(core::WorkerBegin const& begin, core::Part const& part) {
    return begin.tile > 0 && begin.request == part.request && begin.row_tile == part.row_tile;
  }

  DenseDecodeParams const& params_;
  core::PartWalk walk_;
  core::WorkerBegin end_, after_;  // where the next worker starts, and the one after it
  int32_t first_tile_;
};

/// Keeps the first fault of a run; later ones are dropped. Out of line: cold code in the way costs instruction fetches.
__device__ __noinline__ void record_fault(void* workspace, int32_t code, int32_t request, int32_t position, int32_t value) {
  flashmla_fault& fault = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  if (atomicCAS(&fault.code, FLASHMLA_FAULT_NONE, code) != FLASHMLA_FAULT_NONE) return;
  fault.request = request;
  fault.position = position;
  fault.value = value;
}

}  // namespace flashmla::cuda::dense_decode
