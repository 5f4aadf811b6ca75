// The kernels for AVX-512 in float32. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/avx512f.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the generic code
#include "cpu/isa/begin_avx512f.hpp"
#include "cpu/generic/kernels.hpp"
// clang-format on

namespace flashmla::cpu {

constinit Kernels const kAvx512fKernels = KernelsOf<Avx512f>::table();

}  // namespace flashmla::cpu
