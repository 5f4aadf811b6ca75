// Detection through the compiler's cpuid cache, which asks the operating system too (XCR0).
#include "cpu/isa/detect.hpp"

namespace flashmla::cpu {

std::string missing_features(flashmla_isa isa) {
  if (isa == FLASHMLA_ISA_PORTABLE) return {};
#if defined(__x86_64__)
  std::string missing;
  auto const need = [&missing](int present, char const* name) {
    if (present == 0) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  __builtin_cpu_init();
  need(__builtin_cpu_supports("avx2"), "AVX2");
  need(__builtin_cpu_supports("fma"), "FMA");
  need(__builtin_cpu_supports("f16c"), "F16C");
  if (isa == FLASHMLA_ISA_AVX512_BF16) {
    need(__builtin_cpu_supports("avx512f"), "AVX512F");
    need(__builtin_cpu_supports("avx512bw"), "AVX512BW");
    need(__builtin_cpu_supports("avx512vl"), "AVX512VL");
    need(__builtin_cpu_supports("avx512dq"), "AVX512DQ");
    need(__builtin_cpu_supports("avx512bf16"), "AVX512_BF16");
  }
  return missing.empty() ? missing : "this CPU lacks " + missing;
#else
  return "this library was built for a CPU other than x86-64";
#endif
}

}  // namespace flashmla::cpu
