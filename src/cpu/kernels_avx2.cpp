// The kernels for AVX2 + FMA + F16C. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/avx2.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the generic code
#include "cpu/isa/begin_avx2.hpp"
#include "cpu/generic/kernels.hpp"
// clang-format on

namespace flashmla::cpu {

constinit Kernels const kAvx2Kernels = KernelsOf<Avx2>::table();

}  // namespace flashmla::cpu
