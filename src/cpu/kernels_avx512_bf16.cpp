// The kernels for AVX-512 with BF16. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/avx512_bf16.hpp"

#include "cpu/isa/begin_avx512_bf16.hpp"

#include "cpu/generic/kernels.hpp"

namespace flashmla::cpu {

constinit Kernels const kAvx512Bf16Kernels = KernelsOf<Avx512Bf16>::table();

}  // namespace flashmla::cpu
