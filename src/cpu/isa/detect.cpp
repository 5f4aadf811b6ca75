// Detection through the compiler's cpuid cache, which asks the operating system too (XCR0).
#include "cpu/isa/detect.hpp"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace flashmla::cpu {

namespace {

bool is_of_arm(flashmla_isa isa) { return isa == FLASHMLA_ISA_NEON || isa == FLASHMLA_ISA_NEON_BF16; }

}  // namespace

bool is_compiled(flashmla_isa isa) {
#if defined(__x86_64__)
  return !is_of_arm(isa);
#elif defined(__aarch64__)
  return isa == FLASHMLA_ISA_PORTABLE || is_of_arm(isa);
#else
  return isa == FLASHMLA_ISA_PORTABLE;
#endif
}

std::string missing_features(flashmla_isa isa) {
  if (isa == FLASHMLA_ISA_PORTABLE) return {};
  bool const is_arm = is_of_arm(isa);
#if defined(__x86_64__)
  if (is_arm) return "this CPU is x86-64, expected AArch64";
  std::string missing;
  auto const need = [&missing](int present, char const* name) {
    if (present == 0) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  __builtin_cpu_init();
  need(__builtin_cpu_supports("avx2"), "AVX2");
  need(__builtin_cpu_supports("fma"), "FMA");
  need(__builtin_cpu_supports("f16c"), "F16C");
  bool const is_amx = isa == FLASHMLA_ISA_AMX_BF16, is_bf16 = is_amx || isa == FLASHMLA_ISA_AVX512_BF16;
  if (isa == FLASHMLA_ISA_AVX512F || is_bf16) {
    need(__builtin_cpu_supports("avx512f"), "AVX512F");
    need(__builtin_cpu_supports("avx512bw"), "AVX512BW");
    need(__builtin_cpu_supports("avx512vl"), "AVX512VL");
    need(__builtin_cpu_supports("avx512dq"), "AVX512DQ");
  }
  if (is_bf16) need(__builtin_cpu_supports("avx512bf16"), "AVX512_BF16");
  if (is_amx) {
    need(__builtin_cpu_supports("amx-tile"), "AMX_TILE");
    need(__builtin_cpu_supports("amx-bf16"), "AMX_BF16");
  }
  return missing.empty() ? missing : "this CPU lacks " + missing;
#elif defined(__aarch64__)
  constexpr unsigned long kHasBf16 = 1ul << 14;  // HWCAP2_BF16, which older C libraries do not name
  if (!is_arm) return "this CPU is AArch64, expected x86-64";
  return isa == FLASHMLA_ISA_NEON_BF16 && (getauxval(AT_HWCAP2) & kHasBf16) == 0 ? "this CPU lacks FEAT_BF16" : "";
#else
  return std::string("this library was built for a CPU other than ") + (is_arm ? "AArch64" : "x86-64");
#endif
}

}  // namespace flashmla::cpu
