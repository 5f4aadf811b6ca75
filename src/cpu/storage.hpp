// From the public dtypes to what kernels know.
#pragma once

#include <flashmla/flashmla.h>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

constexpr Storage storage_of(flashmla_dtype dtype) {
  if (dtype == FLASHMLA_BF16) return Storage::kBf16;
  return dtype == FLASHMLA_FP16 ? Storage::kFp16 : Storage::kFp32;
}

}  // namespace flashmla::cpu
