#include "cpu/isa_table.hpp"

#include "core/error.hpp"
#include "core/names.hpp"
#include "cpu/isa/detect.hpp"

namespace flashmla::cpu {

namespace {

constexpr IsaRow kTable[] = {
    {FLASHMLA_ISA_AVX512_BF16, "cpu.decode.avx512_bf16",
     "BF16_576 by BF16 dot products, FP16_576 in float32; any page size, h_q, h_kv, q_tokens", &kAvx512Bf16Kernels},
    {FLASHMLA_ISA_AVX512F, "cpu.decode.avx512f", "BF16_576 and FP16_576 in float32; any page size, h_q, h_kv, q_tokens", &kAvx512fKernels},
    {FLASHMLA_ISA_AVX2, "cpu.decode.avx2", "BF16_576 and FP16_576 in float32; any page size, h_q, h_kv, q_tokens", &kAvx2Kernels},
    {FLASHMLA_ISA_NEON_BF16, "cpu.decode.neon_bf16",
     "BF16_576 by BF16 dot products, FP16_576 in float32; any page size, h_q, h_kv, q_tokens", &kNeonBf16Kernels},
    {FLASHMLA_ISA_NEON, "cpu.decode.neon", "BF16_576 and FP16_576 in float32; any page size, h_q, h_kv, q_tokens", &kNeonKernels},
    {FLASHMLA_ISA_PORTABLE, "cpu.decode.portable", "BF16_576 and FP16_576 in float32; any page size, h_q, h_kv, q_tokens",
     &kPortableKernels},
};

}  // namespace

std::span<IsaRow const> isa_table() { return kTable; }

IsaRow const& choose_isa(flashmla_isa isa) {
  std::string usable, missing = "no such row";
  for (IsaRow const& row : kTable) {
    std::string const reason = missing_features(row.isa);
    if (reason.empty() && (isa == FLASHMLA_ISA_AUTO || isa == row.isa)) return row;
    if (row.isa == isa) missing = reason;
    if (reason.empty()) usable += (usable.empty() ? "" : " or ") + std::string(core::isa_name(row.isa));
  }
  core::fail_unsupported("plan_create", "isa", core::isa_name(isa), usable + " (" + missing + ")");
}

std::vector<core::KernelRow> kernel_rows() {
  std::vector<core::KernelRow> rows;
  for (IsaRow const& row : kTable) {
    std::string reason = missing_features(row.isa);
    bool const usable = reason.empty();
    rows.push_back({row.name, row.serves, usable, std::move(reason), row.isa});
  }
  return rows;
}

}  // namespace flashmla::cpu
