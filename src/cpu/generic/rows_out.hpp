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
    if (task.layout != AccLayout::kRows) return emit_blocks(task);
    for (int r = 0; r < task.num_rows; ++r) {
      scale(task.row, task.acc + static_cast<ptrdiff_t>(r) * task.v_dim, task.factor[r], task.v_dim);
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

 private:
  /// out = factor * in; zeros, whatever `in` holds, for a factor of 0.
  static void scale(float* out, float const* in, float factor, int n) {
    if (factor == 0.0f) {
      memset(out, 0, static_cast<size_t>(n) * sizeof(float));
      return;
    }
    typename Isa::Rows const by = Isa::set1(factor);
    for (int i = 0; i < n; i += 16) Isa::store(out + i, Isa::mul(Isa::load(in + i), by));
  }

  /// 16 columns of 16 rows at a time, turned over where rows are the fastest.
  static void emit_blocks(EmitTask const& task) {
    alignas(64) float turned[kBlockRows * kBlockRows], row[kBlockRows];
    int const bytes = number_bytes(task.storage);
    for (int first = 0; first < task.num_rows; first += kBlockRows) {
      float const* acc = task.acc + static_cast<ptrdiff_t>(first) * task.v_dim;
      int const count = task.num_rows - first < kBlockRows ? task.num_rows - first : kBlockRows;
      for (int column = 0; column < task.v_dim; column += kBlockRows, acc += kBlockRows * kBlockRows) {
        float const* rows = acc;
        if (task.layout == AccLayout::kBlocks) {
          uint32_t const* in[kBlockRows];
          for (int i = 0; i < kBlockRows; ++i) in[i] = reinterpret_cast<uint32_t const*>(acc + i * kBlockRows);
          Isa::transpose_words(reinterpret_cast<uint32_t*>(turned), kBlockRows, in);
          rows = turned;
        }
        for (int r = 0; r < count; ++r) {
          scale(row, rows + r * kBlockRows, task.factor[first + r], kBlockRows);
          store(static_cast<char*>(task.out[first + r]) + column * bytes, task.storage, row, kBlockRows);
        }
      }
    }
  }
};

}  // namespace flashmla::cpu
