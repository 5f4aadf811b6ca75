// Approximate base-2 exponential, the softmax's only transcendental.
#pragma once

namespace flashmla::cuda::ptx {

// ex2.approx.ftz.f32: 2 ulp; -inf gives 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// No instruction: the compiler does not know where the value comes from, so nothing that follows from it is worked out before here.
template <class T>
__device__ __forceinline__ void hide_origin(T& value) {
  static_assert(sizeof(T) == 4);
  asm volatile("" : "+r"(value)::"memory");
}

}  // namespace flashmla::cuda::ptx
