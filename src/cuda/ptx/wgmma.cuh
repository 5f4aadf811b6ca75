// wgmma: the warpgroup's asynchronous matrix product, D[64, n] += A[64, 16] B[16, n], fp32 accumulation.
//
// One function per instruction; the element type picks bf16 or f16. Accumulators follow the fragment map of
// tile/fragment.hpp. The operand lists are long because PTX wants every register by name; they are spelled once below.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace flashmla::cuda::ptx {

// wgmma.fence.sync.aligned: register writes before it are visible to the wgmma after it.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// wgmma.commit_group.sync.aligned
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// wgmma.wait_group.sync.aligned: at most kPending groups of this warp are still running.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Keeps the compiler from moving reads or writes of these registers across this point while wgmma owns them.
template <int kCount>
__device__ __forceinline__ void pin_registers(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// The names of an accumulator's registers, and the registers.
#define FLASHMLA_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FLASHMLA_D32                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FLASHMLA_D64                                                                   \
  FLASHMLA_D32                                                                         \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FLASHMLA_D128                                                                            \
  FLASHMLA_D64                                                                                   \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define FLASHMLA_REGISTERS_8(d, i) \
  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
#define FLASHMLA_REGISTERS_32(d, i) \
  FLASHMLA_REGISTERS_8(d, i), FLASHMLA_REGISTERS_8(d, (i) + 8), FLASHMLA_REGISTERS_8(d, (i) + 16), FLASHMLA_REGISTERS_8(d, (i) + 24)
#define FLASHMLA_D8_OPERANDS(d) FLASHMLA_REGISTERS_8(d, 0)
#define FLASHMLA_D32_OPERANDS(d) FLASHMLA_REGISTERS_32(d, 0)
#define FLASHMLA_D64_OPERANDS(d) FLASHMLA_D32_OPERANDS(d), FLASHMLA_REGISTERS_32(d, 32)
#define FLASHMLA_D128_OPERANDS(d) FLASHMLA_D64_OPERANDS(d), FLASHMLA_REGISTERS_32(d, 64), FLASHMLA_REGISTERS_32(d, 96)

// One instruction of accumulators D; A, B and P are the names of the operands behind them: two descriptors, or four registers and a
// descriptor, and whether to accumulate. `tail` is B's major-ness, with A's before it where A is in shared memory.
#define FLASHMLA_WGMMA_SS(shape_types, D, A, B, P, tail)                                                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P                                                         \
               ", 0;\n"                                                                                      \
               "wgmma.mma_async.sync.aligned." shape_types " {" D "}, " A ", " B ", p, 1, 1, " tail ";\n}\n" \
               : D##_OPERANDS(d)                                                                             \
               : "l"(a_descriptor), "l"(b_descriptor), "r"(static_cast<int32_t>(accumulate))                 \
               : "memory")
#define FLASHMLA_WGMMA_RS(shape_types, D, A, B, P, tail)                                                              \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P                                                                  \
               ", 0;\n"                                                                                               \
               "wgmma.mma_async.sync.aligned." shape_types " {" D "}, {" A "}, " B ", p, 1, 1, " tail ";\n}\n"        \
               : D##_OPERANDS(d)                                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor), "r"(static_cast<int32_t>(accumulate)) \
               : "memory")

template <class Element>
inline constexpr bool kIsBf16 = std::is_same_v<Element, __nv_bfloat16>;

// wgmma.mma_async.sync.aligned.m64n16k16.f32: A and B in shared memory, A K-major or M-major (transposed), B K-major.
template <class Element, bool kMMajor>
__device__ __forceinline__ void wgmma_m64n16k16_ss(float (&d)[8], uint64_t a_descriptor, uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element> && kMMajor) FLASHMLA_WGMMA_SS("m64n16k16.f32.bf16.bf16", FLASHMLA_D8, "%8", "%9", "%10", "1, 0");
  else if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_SS("m64n16k16.f32.bf16.bf16", FLASHMLA_D8, "%8", "%9", "%10", "0, 0");
  else if constexpr (kMMajor) FLASHMLA_WGMMA_SS("m64n16k16.f32.f16.f16", FLASHMLA_D8, "%8", "%9", "%10", "1, 0");
  else FLASHMLA_WGMMA_SS("m64n16k16.f32.f16.f16", FLASHMLA_D8, "%8", "%9", "%10", "0, 0");
}

// wgmma.mma_async.sync.aligned.m64n64k16.f32: A and B in shared memory, B K-major.
template <class Element>
__device__ __forceinline__ void wgmma_m64n64k16_ss(float (&d)[32], uint64_t a_descriptor, uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_SS("m64n64k16.f32.bf16.bf16", FLASHMLA_D32, "%32", "%33", "%34", "0, 0");
  else FLASHMLA_WGMMA_SS("m64n64k16.f32.f16.f16", FLASHMLA_D32, "%32", "%33", "%34", "0, 0");
}

// wgmma.mma_async.sync.aligned.m64n64k16.f32: A in registers, B in shared memory, B K-major.
template <class Element>
__device__ __forceinline__ void wgmma_m64n64k16_rs(float (&d)[32], uint32_t const (&a)[4], uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_RS("m64n64k16.f32.bf16.bf16", FLASHMLA_D32, "%32, %33, %34, %35", "%36", "%37", "0");
  else FLASHMLA_WGMMA_RS("m64n64k16.f32.f16.f16", FLASHMLA_D32, "%32, %33, %34, %35", "%36", "%37", "0");
}

// wgmma.mma_async.sync.aligned.m64n128k16.f32: A and B in shared memory, B N-major (transposed).
template <class Element>
__device__ __forceinline__ void wgmma_m64n128k16_ss(float (&d)[64], uint64_t a_descriptor, uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_SS("m64n128k16.f32.bf16.bf16", FLASHMLA_D64, "%64", "%65", "%66", "0, 1");
  else FLASHMLA_WGMMA_SS("m64n128k16.f32.f16.f16", FLASHMLA_D64, "%64", "%65", "%66", "0, 1");
}

// wgmma.mma_async.sync.aligned.m64n128k16.f32: A in registers, B in shared memory, B N-major (transposed).
template <class Element>
__device__ __forceinline__ void wgmma_m64n128k16_rs(float (&d)[64], uint32_t const (&a)[4], uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_RS("m64n128k16.f32.bf16.bf16", FLASHMLA_D64, "%64, %65, %66, %67", "%68", "%69", "1");
  else FLASHMLA_WGMMA_RS("m64n128k16.f32.f16.f16", FLASHMLA_D64, "%64, %65, %66, %67", "%68", "%69", "1");
}

// wgmma.mma_async.sync.aligned.m64n256k16.f32: A and B in shared memory, B N-major (transposed).
template <class Element>
__device__ __forceinline__ void wgmma_m64n256k16_ss(float (&d)[128], uint64_t a_descriptor, uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>) FLASHMLA_WGMMA_SS("m64n256k16.f32.bf16.bf16", FLASHMLA_D128, "%128", "%129", "%130", "0, 1");
  else FLASHMLA_WGMMA_SS("m64n256k16.f32.f16.f16", FLASHMLA_D128, "%128", "%129", "%130", "0, 1");
}

// wgmma.mma_async.sync.aligned.m64n256k16.f32: A in registers, B in shared memory, B N-major (transposed).
template <class Element>
__device__ __forceinline__ void wgmma_m64n256k16_rs(float (&d)[128], uint32_t const (&a)[4], uint64_t b_descriptor, bool accumulate) {
  static_assert(kIsBf16<Element> || std::is_same_v<Element, __half>);
  if constexpr (kIsBf16<Element>)
    FLASHMLA_WGMMA_RS("m64n256k16.f32.bf16.bf16", FLASHMLA_D128, "%128, %129, %130, %131", "%132", "%133", "1");
  else FLASHMLA_WGMMA_RS("m64n256k16.f32.f16.f16", FLASHMLA_D128, "%128, %129, %130, %131", "%132", "%133", "1");
}

#undef FLASHMLA_WGMMA_RS
#undef FLASHMLA_WGMMA_SS
#undef FLASHMLA_D128_OPERANDS
#undef FLASHMLA_D64_OPERANDS
#undef FLASHMLA_D32_OPERANDS
#undef FLASHMLA_D8_OPERANDS
#undef FLASHMLA_REGISTERS_32
#undef FLASHMLA_REGISTERS_8
#undef FLASHMLA_D128
#undef FLASHMLA_D64
#undef FLASHMLA_D32
#undef FLASHMLA_D8

}  // namespace flashmla::cuda::ptx
