// TMA: tensor copies from global to shared memory that complete on an mbarrier.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/ptx/mbarrier.cuh"

namespace flashmla::cuda::ptx {

// prefetch.tensormap
__device__ __forceinline__ void prefetch_tensor_map(CUtensorMap const* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}

/// What createpolicy.fractional.L2::evict_first.b64 with a fraction of 1 gives on sm_90: for data that is read once. A constant
/// needs no registers; CUTLASS's TMA::CacheHintSm90 has the same value, and that of evict_normal.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000, kEvictNormal = 0x1000000000000000;

/// The source of a tensor copy: a map, and the L2 policy of its reads.
struct TmaSource {
  CUtensorMap const* map;
  uint64_t policy;
};

/// Where a tensor copy goes: shared memory, the barrier it completes on, and the bytes that it brings.
struct TmaTarget {
  uint32_t shared;
  uint32_t barrier;
  uint32_t bytes;
};

/// The first element of a box, in the order of the map's dimensions; its column is 0.
struct TmaPosition {
  int32_t row, box, head, outer;
};

// elect.sync, then by the elected lane mbarrier.arrive.expect_tx and
// cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint: the box at `position`.
// For a whole warp with equal operands: a copy by one lane of a branch costs 500 cycles of moving them to uniform registers.
__device__ __forceinline__ void tma_load_5d(TmaTarget const& target, TmaSource const& source, TmaPosition const& position) {
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, 0xffffffff;\n"
      "@elected mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%2], %8;\n"
      "@elected cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {0, %3, %4, "
      "%5, %6}], [%2], %7;\n"
      "}\n" ::"r"(target.shared),
      "l"(reinterpret_cast<uint64_t>(source.map)), "r"(target.barrier), "r"(position.row), "r"(position.box), "r"(position.head),
      "r"(position.outer), "l"(source.policy), "r"(target.bytes)
      : "memory");
}

// The same without the arrival, whose bytes count for this box too: one of several for one barrier.
__device__ __forceinline__ void tma_load_more_5d(TmaTarget const& target, TmaSource const& source, TmaPosition const& position) {
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, 0xffffffff;\n"
      "@elected cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {0, %3, %4, "
      "%5, %6}], [%2], %7;\n"
      "}\n" ::"r"(target.shared),
      "l"(reinterpret_cast<uint64_t>(source.map)), "r"(target.barrier), "r"(position.row), "r"(position.box), "r"(position.head),
      "r"(position.outer), "l"(source.policy)
      : "memory");
}

}  // namespace flashmla::cuda::ptx
