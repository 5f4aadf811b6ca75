// The entry points of one instruction set; its .cpp includes this inside the set's target region, and nothing else may
// be compiled there: an inline function of the standard library, built for AVX-512 here, could be the copy that the
// linker keeps for everyone.
#pragma once

#include "cpu/generic/decode_bf16.hpp"
#include "cpu/generic/decode_fp32.hpp"
#include "cpu/generic/rows_out.hpp"

namespace flashmla::cpu {

template <class Isa>
struct KernelsOf {
  static void decode_part(PartTask const& task) {
    if constexpr (Isa::kHasBf16Dot) {
      if (task.q_storage == Storage::kBf16 && task.keys.storage == Storage::kBf16) return DecodeBf16<Isa>::run(task);
    }
    DecodeFp32<Isa>::run(task);
  }
  static constexpr Kernels table() {
    return {Isa::kHasBf16Dot, &decode_part, &RowsOut<Isa>::emit, &RowsOut<Isa>::add, &RowsOut<Isa>::store};
  }
};

}  // namespace flashmla::cpu
