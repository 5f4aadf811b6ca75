// The kernel table of the CUDA backend: one row an instance. `kernels()` lists it and plans choose from it, in this order.
#pragma once

#include <string>

#include "core/problem.hpp"

namespace flashmla::cuda {

struct KernelEntry {
  char const* name;
  flashmla_kv_format format;
  flashmla_dtype out_dtype;
};

inline constexpr KernelEntry kKernels[] = {
    {"cuda.decode.hopper_bf16_out_bf16", FLASHMLA_KV_BF16_576, FLASHMLA_BF16},
    {"cuda.decode.hopper_bf16_out_fp16", FLASHMLA_KV_BF16_576, FLASHMLA_FP16},
    {"cuda.decode.hopper_bf16_out_fp32", FLASHMLA_KV_BF16_576, FLASHMLA_FP32},
    {"cuda.decode.hopper_fp16_out_bf16", FLASHMLA_KV_FP16_576, FLASHMLA_BF16},
    {"cuda.decode.hopper_fp16_out_fp16", FLASHMLA_KV_FP16_576, FLASHMLA_FP16},
    {"cuda.decode.hopper_fp16_out_fp32", FLASHMLA_KV_FP16_576, FLASHMLA_FP32},
    {"cuda.decode.hopper_bf16_320_out_bf16", FLASHMLA_KV_BF16_320, FLASHMLA_BF16},
    {"cuda.decode.hopper_bf16_320_out_fp16", FLASHMLA_KV_BF16_320, FLASHMLA_FP16},
    {"cuda.decode.hopper_bf16_320_out_fp32", FLASHMLA_KV_BF16_320, FLASHMLA_FP32},
    {"cuda.decode.hopper_bf16_288_out_bf16", FLASHMLA_KV_BF16_288, FLASHMLA_BF16},
    {"cuda.decode.hopper_bf16_288_out_fp16", FLASHMLA_KV_BF16_288, FLASHMLA_FP16},
    {"cuda.decode.hopper_bf16_288_out_fp32", FLASHMLA_KV_BF16_288, FLASHMLA_FP32},
};

/// The problems that a row accepts, in words.
std::string serves(KernelEntry const& kernel);

/// The row that serves the problem. Throws core::Error(FLASHMLA_UNSUPPORTED), which names the nearest that is.
KernelEntry const& select_kernel(core::Problem const& problem);

}  // namespace flashmla::cuda
