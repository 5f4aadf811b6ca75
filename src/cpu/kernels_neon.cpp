// The kernels for AArch64's NEON, which needs no target region.
#include "cpu/generic/kernels.hpp"
#include "cpu/isa/neon.hpp"

namespace flashmla::cpu {

constinit Kernels const kNeonKernels = KernelsOf<Neon>::table();

}  // namespace flashmla::cpu
