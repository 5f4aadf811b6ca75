#include "core/names.hpp"

#include "core/kv_format.hpp"

namespace flashmla::core {

char const* dtype_name(int32_t dtype) noexcept {
  switch (dtype) {
    case FLASHMLA_DTYPE_NONE:
      return "NONE";
    case FLASHMLA_BF16:
      return "BF16";
    case FLASHMLA_FP16:
      return "FP16";
    case FLASHMLA_FP32:
      return "FP32";
    case FLASHMLA_FP64:
      return "FP64";
    case FLASHMLA_INT32:
      return "INT32";
    case FLASHMLA_INT64:
      return "INT64";
    case FLASHMLA_INT8:
      return "INT8";
    case FLASHMLA_UINT8:
      return "UINT8";
    case FLASHMLA_E4M3:
      return "E4M3";
    default:
      return "?";
  }
}

std::string dtype_text(int32_t dtype) {
  char const* const name = dtype_name(dtype);
  return name[0] == '?' ? std::to_string(dtype) : name;
}

std::string device_name(flashmla_device device) {
  if (device.kind == FLASHMLA_CPU) return device.index == 0 ? "cpu" : "cpu:" + std::to_string(device.index);
  if (device.kind == FLASHMLA_CUDA) return "cuda:" + std::to_string(device.index);
  return "device kind " + std::to_string(device.kind);
}

char const* isa_name(int32_t isa) noexcept {
  switch (isa) {
    case FLASHMLA_ISA_AUTO:
      return "auto";
    case FLASHMLA_ISA_PORTABLE:
      return "portable";
    case FLASHMLA_ISA_AVX2:
      return "avx2";
    case FLASHMLA_ISA_AVX512_BF16:
      return "avx512_bf16";
    case FLASHMLA_ISA_AVX512F:
      return "avx512f";
    case FLASHMLA_ISA_NEON:
      return "neon";
    case FLASHMLA_ISA_NEON_BF16:
      return "neon_bf16";
    case FLASHMLA_ISA_AMX_BF16:
      return "amx_bf16";
    default:
      return "?";
  }
}

std::string built_formats() {
  std::string names;
  char const* last = nullptr;
  for (KvFormat const& format : kKvFormats) {
    if (!format.built) continue;
    if (last != nullptr) names += (names.empty() ? "" : ", ") + std::string(last);
    last = format.name;
  }
  return names + " or " + last;
}

char const* status_name(int32_t status) noexcept {
  switch (status) {
    case FLASHMLA_OK:
      return "FLASHMLA_OK";
    case FLASHMLA_INVALID_ARGUMENT:
      return "FLASHMLA_INVALID_ARGUMENT";
    case FLASHMLA_UNSUPPORTED:
      return "FLASHMLA_UNSUPPORTED";
    case FLASHMLA_EXHAUSTED:
      return "FLASHMLA_EXHAUSTED";
    case FLASHMLA_OUT_OF_MEMORY:
      return "FLASHMLA_OUT_OF_MEMORY";
    case FLASHMLA_DEVICE_ERROR:
      return "FLASHMLA_DEVICE_ERROR";
    case FLASHMLA_INTERNAL:
      return "FLASHMLA_INTERNAL";
    default:
      return "unknown status";
  }
}

}  // namespace flashmla::core
