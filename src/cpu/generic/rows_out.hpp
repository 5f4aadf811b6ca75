// Finished rows: out of an accumulator, or summed up from partial results.
#pragma once

#include <string.h>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

template <class Isa>
struct RowsOut {
  static void store(void* out, Storage storage, float const* row, int32_t n) {
    if (storage == Storage::kFp32) memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
    else if (storage == Storage::kBf16) Isa::narrow_bf16(static_cast<uint16_t*>(out), row, n);
    else Isa::narrow_fp16(static_cast<uint16_t*>(out), row, n);
  }

  static void emit(EmitTask const& task) {
    bool const by_rows = task.layout == AccLayout::kRows;
    ptrdiff_t const stride = by_rows ? 1 : kBlockRows;
    for (int r = 0; r < task.num_rows; ++r) {
      float const factor = task.factor[r];
      ptrdiff_t const at = by_rows ? static_cast<ptrdiff_t>(r) * task.v_dim
                                   : static_cast<ptrdiff_t>(r / kBlockRows) * task.v_dim * kBlockRows + r % kBlockRows;
      float const* const acc = task.acc + at;
      for (int column = 0; column < task.v_dim; ++column) task.row[column] = factor == 0.0f ? 0.0f : factor * acc[column * stride];
      store(task.out[r], task.storage, task.row, task.v_dim);
    }
  }

  static void add(float* sum, void const* in, Storage storage, float weight, int32_t n) {
    if (storage == Storage::kFp32) return Isa::accumulate(sum, static_cast<float const*>(in), weight, n);
    constexpr int kStep = 128;
    float widened[kStep];
    for (int at = 0; at < n; at += kStep) {
      int const count = n - at < kStep ? n - at : kStep;
      uint16_t const* const narrow = static_cast<uint16_t const*>(in) + at;
      if (storage == Storage::kBf16) Isa::widen_bf16(widened, narrow, count);
      else Isa::widen_fp16(widened, narrow, count);
      Isa::accumulate(sum + at, widened, weight, count);
    }
  }
};

}  // namespace flashmla::cpu
