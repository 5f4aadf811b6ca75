// Approximate base-2 exponential, the softmax's only transcendental.
#pragma once

namespace flashmla::cuda::ptx {

// ex2.approx.ftz.f32: 2 ulp; -inf gives 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace flashmla::cuda::ptx
