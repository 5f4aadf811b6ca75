#include "cpu/isa_table.hpp"

#include "core/error.hpp"
#include "core/names.hpp"
#include "cpu/isa/detect.hpp"
#include "cpu/system.hpp"

namespace flashmla::cpu {

namespace {

constexpr IsaRow kTable[] = {
    // 3.7 to 10 times as fast as AVX-512 BF16 on one thread (16 and 128 heads, 4,096 tokens; docs/perf/2026-11-26-cpu-amx.md).
    {FLASHMLA_ISA_AMX_BF16, "cpu.decode.amx_bf16",
     "BF16_576, BF16_320 and BF16_288 by products of AMX tiles, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens",
     &kAmxBf16Kernels},
    {FLASHMLA_ISA_AVX512_BF16, "cpu.decode.avx512_bf16",
     "BF16_576, BF16_320 and BF16_288 by BF16 dot products, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens",
     &kAvx512Bf16Kernels},
    {FLASHMLA_ISA_AVX512F, "cpu.decode.avx512f",
     "BF16_576, BF16_320, BF16_288, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens", &kAvx512fKernels},
    {FLASHMLA_ISA_AVX2, "cpu.decode.avx2",
     "BF16_576, BF16_320, BF16_288, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens", &kAvx2Kernels},
    {FLASHMLA_ISA_NEON_BF16, "cpu.decode.neon_bf16",
     "BF16_576, BF16_320 and BF16_288 by BF16 dot products, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens",
     &kNeonBf16Kernels},
    {FLASHMLA_ISA_NEON, "cpu.decode.neon",
     "BF16_576, BF16_320, BF16_288, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens", &kNeonKernels},
    {FLASHMLA_ISA_PORTABLE, "cpu.decode.portable",
     "BF16_576, BF16_320, BF16_288, FP16_576 and FP32_576 in float32; any page size, h_q, h_kv, q_tokens", &kPortableKernels},
};

/// Empty when this process can run a row, else why not.
std::string why_not_usable(flashmla_isa isa) {
  std::string const missing = missing_features(isa);
  if (!missing.empty() || isa != FLASHMLA_ISA_AMX_BF16) return missing;
  static bool const is_granted = request_tile_registers();
  return is_granted ? "" : "the operating system does not grant the tile registers of AMX";
}

}  // namespace

std::span<IsaRow const> isa_table() { return kTable; }

IsaRow const& choose_isa(flashmla_isa isa) {
  std::string usable, missing = "no such row";
  for (IsaRow const& row : kTable) {
    std::string const reason = why_not_usable(row.isa);
    if (reason.empty() && (isa == FLASHMLA_ISA_AUTO || isa == row.isa)) return row;
    if (row.isa == isa) missing = reason;
    if (reason.empty()) usable += (usable.empty() ? "" : " or ") + std::string(core::isa_name(row.isa));
  }
  core::fail_unsupported("plan_create", "isa", core::isa_name(isa), usable + " (" + missing + ")");
}

std::vector<core::KernelRow> kernel_rows() {
  std::vector<core::KernelRow> rows;
  for (IsaRow const& row : kTable) {
    std::string reason = why_not_usable(row.isa);
    bool const usable = reason.empty();
    rows.push_back({row.name, row.serves, usable, std::move(reason), row.isa, is_compiled(row.isa)});
  }
  return rows;
}

}  // namespace flashmla::cpu
