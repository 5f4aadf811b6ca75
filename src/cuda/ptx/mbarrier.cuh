// mbarrier: arrival counters in shared memory with a phase bit. One function per instruction.
#pragma once

#include <cstdint>

namespace flashmla::cuda::ptx {

/// Address of a shared-memory object in the shared window, as PTX takes it.
__device__ __forceinline__ uint32_t shared_address(void const* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// mbarrier.init.shared::cta.b64
__device__ __forceinline__ void mbarrier_init(uint64_t& barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

// fence.mbarrier_init.release.cluster: makes initialised barriers visible to the async proxy.
__device__ __forceinline__ void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// mbarrier.arrive.release.cta.shared::cta.b64
__device__ __forceinline__ void mbarrier_arrive(uint64_t& barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// mbarrier.arrive.expect_tx.release.cta.shared::cta.b64: one arrival, and `bytes` still to come.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint64_t& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

// mbarrier.test_wait.parity.acquire.cta.shared::cta.b64: has the phase of that parity completed?
__device__ __forceinline__ bool mbarrier_test(uint64_t& barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(done)
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

// mbarrier.try_wait.parity.acquire.cta.shared::cta.b64, again until the phase of that parity has completed. The loop is
// inside the asm because ptxas treats a loop in C++ as divergent code, in which it serialises wgmma.
__device__ __forceinline__ void mbarrier_wait(uint64_t& barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait_%=:\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait_%=;\n"
      "}\n" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace flashmla::cuda::ptx
