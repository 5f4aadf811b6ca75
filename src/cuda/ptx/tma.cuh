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

// createpolicy.fractional.L2::evict_first.b64: for data that is read once.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy)::"memory");
  return policy;
}

/// The source of a tensor copy: a map, and the L2 policy of its reads.
struct TmaSource {
  CUtensorMap const* map;
  uint64_t policy;
};

// cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint: the box at `position`.
__device__ __forceinline__ void tma_load_4d(void* shared, TmaSource const& source, uint64_t& barrier, int4 position) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], "
      "%7;" ::"r"(shared_address(shared)),
      "l"(reinterpret_cast<uint64_t>(source.map)), "r"(shared_address(&barrier)), "r"(position.x), "r"(position.y), "r"(position.z),
      "r"(position.w), "l"(source.policy)
      : "memory");
}

}  // namespace flashmla::cuda::ptx
