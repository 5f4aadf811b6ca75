// The kernels for any CPU: no target region, no intrinsics.
#include "cpu/generic/kernels.hpp"
#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu {

constinit Kernels const kPortableKernels = KernelsOf<Scalar>::table();

}  // namespace flashmla::cpu
