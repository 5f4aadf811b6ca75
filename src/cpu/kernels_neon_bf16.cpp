// The kernels for AArch64 with FEAT_BF16. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/neon_bf16.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the generic code
#include "cpu/isa/begin_neon_bf16.hpp"
#include "cpu/generic/kernels.hpp"
// clang-format on

namespace flashmla::cpu {

constinit Kernels const kNeonBf16Kernels = KernelsOf<NeonBf16>::table();

}  // namespace flashmla::cpu
