// The entry points of one instruction set; its .cpp includes this inside the set's target region, and nothing else may
// be compiled there: an inline function of the standard library, built for AVX-512 here, could be the copy that the
// linker keeps for everyone.
#pragma once

#include "cpu/generic/decode_bf16.hpp"
#include "cpu/generic/decode_fp32.hpp"
#include "cpu/generic/decode_narrow.hpp"
#include "cpu/generic/decode_tiles.hpp"
#include "cpu/generic/rows_out.hpp"

namespace flashmla::cpu {

template <class Isa>
struct KernelsOf {
  static void decode_wide(PartTask const& task) {
    if (task.keys.storage != Storage::kBf16) return DecodeFp32<Isa>::run(task);
    if constexpr (Isa::kHasTiles) return DecodeTiles<Isa>::run(task);
    else if constexpr (Isa::kHasBf16Dot) return DecodeBf16<Isa>::run(task);
    else return DecodeFp32<Isa>::run(task);
  }
  static void decode_narrow(PartTask const& task) {
    if (task.keys.storage == Storage::kFp16) return DecodeNarrow<Isa, WidenedNumbers<Isa, Storage::kFp16>>::run(task);
    if (task.keys.storage == Storage::kFp32) return DecodeNarrow<Isa, WidenedNumbers<Isa, Storage::kFp32>>::run(task);
    if constexpr (Isa::kHasBf16Dot) return DecodeNarrow<Isa, Bf16Pairs<Isa>>::run(task);
    else return DecodeNarrow<Isa, WidenedNumbers<Isa, Storage::kBf16>>::run(task);
  }
  static constexpr DecodeKernel wide_bf16() {
    if constexpr (Isa::kHasTiles) return {&decode_wide, AccLayout::kTiles, DecodeTiles<Isa>::kStepTokens};
    else return {&decode_wide, AccLayout::kBlocks, kTileTokens};
  }
  static constexpr Kernels table() {
    return {wide_bf16(),
            {&decode_wide, AccLayout::kBlocks, kTileTokens},
            {&decode_narrow, AccLayout::kRows, kTileTokens},
            Isa::kNarrowRowsBf16,
            Isa::kNarrowRowsFp16,
            Isa::kNarrowRowsFp32,
            &RowsOut<Isa>::emit,
            &RowsOut<Isa>::add,
            &RowsOut<Isa>::store};
  }
};

}  // namespace flashmla::cpu
