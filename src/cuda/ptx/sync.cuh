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

// bar.red.or.pred id, threads: whether `value` holds in any of them.
__device__ __forceinline__ bool named_barrier_any(int32_t id, int32_t threads, bool value) {
  uint32_t any;
  asm volatile(
      "{\n"
      ".reg .pred value, any;\n"
      "setp.ne.u32 value, %3, 0;\n"
      "bar.red.or.pred any, %1, %2, value;\n"
      "selp.u32 %0, 1, 0, any;\n"
      "}\n"
      : "=r"(any)
      : "r"(id), "r"(threads), "r"(static_cast<uint32_t>(value))
      : "memory");
  return any != 0;
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

// ld.relaxed.gpu.global: as it is in L2 at some time after the call; without order among loads of different places.
__device__ __forceinline__ uint32_t load_relaxed(uint32_t const* pointer) {
  uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(reinterpret_cast<uint64_t>(pointer)) : "memory");
  return value;
}
__device__ __forceinline__ float2 load_relaxed_8(float2 const* pointer) {
  float2 value;
  asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
               : "=f"(value.x), "=f"(value.y)
               : "l"(reinterpret_cast<uint64_t>(pointer))
               : "memory");
  return value;
}
__device__ __forceinline__ uint4 load_relaxed_16(uint4 const* pointer) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(reinterpret_cast<uint64_t>(pointer))
               : "memory");
  return value;
}

// atom.add.relaxed.gpu.global.u32; returns the value before.
__device__ __forceinline__ uint32_t add_relaxed(uint32_t* pointer, uint32_t value) {
  uint32_t before;
  asm volatile("atom.add.relaxed.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(reinterpret_cast<uint64_t>(pointer)), "r"(value)
               : "memory");
  return before;
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
