// Fences, named barriers, register reallocation and the ordering of dependent grids.
#pragma once

#include <cstdint>

namespace flashmla::cuda::ptx {

// fence.proxy.async.shared::cta: this thread's ordinary shared-memory writes before later async-proxy reads (wgmma, TMA).
__device__ __forceinline__ void fence_proxy_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// bar.sync id, threads
__device__ __forceinline__ void named_barrier_sync(int32_t id, int32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// setmaxnreg.inc.sync.aligned.u32
template <int kRegisters>
__device__ __forceinline__ void register_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters) : "memory");
}

// setmaxnreg.dec.sync.aligned.u32
template <int kRegisters>
__device__ __forceinline__ void register_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters) : "memory");
}

// ld.acquire.gpu.global.u32
__device__ __forceinline__ uint32_t load_acquire(uint32_t const* pointer) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(reinterpret_cast<uint64_t>(pointer)) : "memory");
  return value;
}

// atom.add.acq_rel.gpu.global.u32; returns the value before.
__device__ __forceinline__ uint32_t add_acquire_release(uint32_t* pointer, uint32_t value) {
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(reinterpret_cast<uint64_t>(pointer)), "r"(value)
               : "memory");
  return before;
}

// ld.global.nc.b32, which stays where it is written: the compiler does not move it behind what needs other loads first.
__device__ __forceinline__ int32_t load_in_place(int32_t const* pointer) {
  int32_t value;
  asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(value) : "l"(reinterpret_cast<uint64_t>(pointer)) : "memory");
  return value;
}

// atom.exch.acq_rel.gpu.global.b32; returns the value before.
__device__ __forceinline__ uint32_t exchange_acquire_release(uint32_t* pointer, uint32_t value) {
  uint32_t before;
  asm volatile("atom.exch.acq_rel.gpu.global.b32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(reinterpret_cast<uint64_t>(pointer)), "r"(value)
               : "memory");
  return before;
}

// griddepcontrol.wait: all grids before this one in the stream have finished and their writes are visible.
__device__ __forceinline__ void grid_dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// griddepcontrol.launch_dependents: the next grid may be scheduled (it still waits for this one's memory).
__device__ __forceinline__ void grid_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace flashmla::cuda::ptx
