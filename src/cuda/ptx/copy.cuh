// Small copies between memory spaces: cp.async, ldmatrix and stmatrix.
#pragma once

#include <cstdint>

namespace flashmla::cuda::ptx {

// cp.async.cg.shared.global 16, with `bytes` (0 or 16) read and the rest filled with zeros.
__device__ __forceinline__ void cp_async_16(uint32_t shared, void const* global, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(reinterpret_cast<uint64_t>(global)), "r"(bytes)
               : "memory");
}

// cp.async.cg.shared.global 16, ignore-src: zeros where `is_zero`, without reading.
__device__ __forceinline__ void cp_async_16_or_zeros(uint32_t shared, void const* global, bool is_zero) {
  asm volatile(
      "{\n"
      ".reg .pred is_zero;\n"
      "setp.ne.u32 is_zero, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, is_zero;\n"
      "}\n" ::"r"(shared),
      "l"(reinterpret_cast<uint64_t>(global)), "r"(static_cast<uint32_t>(is_zero))
      : "memory");
}

// cp.async.wait_all
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// cp.async.mbarrier.arrive.noinc.shared::cta.b64: this thread's arrival, once all its cp.async before have landed.
__device__ __forceinline__ void cp_async_arrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// prefetch.global.L2
__device__ __forceinline__ void prefetch_l2(void const* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(reinterpret_cast<uint64_t>(global)) : "memory");
}

// st.shared.v4.b32
__device__ __forceinline__ void store_shared_16(uint32_t shared, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// ld.shared.v4.b32
__device__ __forceinline__ uint4 load_shared_16(uint32_t shared) {
  uint4 value;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(shared)
               : "memory");
  return value;
}

// st.shared.b32
__device__ __forceinline__ void store_shared_4(uint32_t shared, uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared), "r"(value) : "memory");
}

// st.shared.b16
__device__ __forceinline__ void store_shared_2(uint32_t shared, uint16_t value) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(shared), "h"(value) : "memory");
}

// ldmatrix.sync.aligned.m8n8.x4.shared.b16: lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared)
               : "memory");
}

// stmatrix.sync.aligned.m8n8.x4.shared.b16: lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void stmatrix_x4(uint32_t shared, uint32_t (&matrices)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(matrices[0]), "r"(matrices[1]),
               "r"(matrices[2]), "r"(matrices[3])
               : "memory");
}

// stmatrix.sync.aligned.m8n8.x2.trans.shared.b16: as above, rows stored as columns; lanes 0 .. 15 give addresses.
__device__ __forceinline__ void stmatrix_transposed(uint32_t shared, uint32_t (&matrices)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(shared), "r"(matrices[0]), "r"(matrices[1])
               : "memory");
}

// stmatrix.sync.aligned.m8n8.x4.trans.shared.b16
__device__ __forceinline__ void stmatrix_transposed(uint32_t shared, uint32_t (&matrices)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(matrices[0]), "r"(matrices[1]),
               "r"(matrices[2]), "r"(matrices[3])
               : "memory");
}

}  // namespace flashmla::cuda::ptx
