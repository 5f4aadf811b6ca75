// The kernels for AVX-512 with BF16. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/avx512_bf16.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the generic code
#include "cpu/isa/begin_avx512_bf16.hpp"
#include "cpu/generic/kernels.hpp"
// clang-format on

namespace flashmla::cpu {

constinit Kernels const kAvx512Bf16Kernels = KernelsOf<Avx512Bf16>::table();

}  // namespace flashmla::cpu
