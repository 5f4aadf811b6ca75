// The kernels for AVX-512 with BF16 and AMX. Only run after detection (cpu/isa/detect.hpp) says so.
#include "cpu/isa/amx.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the generic code
#include "cpu/isa/begin_amx.hpp"
#include "cpu/generic/kernels.hpp"
// clang-format on

namespace flashmla::cpu {

constinit Kernels const kAmxBf16Kernels = KernelsOf<AmxBf16>::table();

}  // namespace flashmla::cpu
