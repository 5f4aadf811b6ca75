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

// cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes: the box at `position`.
__device__ __forceinline__ void tma_load_4d(void* shared, CUtensorMap const* map, uint64_t& barrier, int4 position) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
                   shared_address(shared)),
               "l"(reinterpret_cast<uint64_t>(map)), "r"(shared_address(&barrier)), "r"(position.x), "r"(position.y), "r"(position.z),
               "r"(position.w)
               : "memory");
}

}  // namespace flashmla::cuda::ptx
