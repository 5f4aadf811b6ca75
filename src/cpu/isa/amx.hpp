// AMX: eight tile registers of 16 rows of 64 bytes, and a product of two of them.
//
// A tile unit has these functions, with the tile chosen at compile time as the instructions want it:
//   configure / release     all eight tiles become 16 rows of 64 bytes / registers go back to their initial state
//   zero<T>                 T = 0
//   load<T>, store<T>       rows lie `stride` bytes apart in memory
//   load_passing<T>         load, of what comes by once in a while from L2 and shall not drive what stays out of L1
//   dot<C, A, B>            C[m][n] += sum over k of A[m][2k] B[k][2n] + A[m][2k + 1] B[k][2n + 1], for m, n, k in 16: A is
//                           16 x 32 BF16, B 16 x 16 pairs, C 16 x 16 float32
// The intrinsics want their tile numbers as literals, so a macro lists them. tdpbf16ps flushes denormals and rounds to nearest
// even, whatever MXCSR says.
#pragma once

#include "cpu/isa/avx512_bf16.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace flashmla::cpu {

struct AmxTiles {
  static void configure() { _tile_loadconfig(&kConfig); }
  static void release() { _tile_release(); }
#define FLASHMLA_FOR_TILE(call) call(0) call(1) call(2) call(3) call(4) call(5) call(6) call(7)
  template <int kTile>
  static void zero() {
#define FLASHMLA_ZERO(tile) \
  if constexpr (kTile == tile) _tile_zero(tile);
    FLASHMLA_FOR_TILE(FLASHMLA_ZERO)
  }
  template <int kTile>
  static void load(void const* p, ptrdiff_t stride) {
    fence();
#define FLASHMLA_LOAD(tile) \
  if constexpr (kTile == tile) _tile_loadd(tile, p, stride);
    FLASHMLA_FOR_TILE(FLASHMLA_LOAD)
  }
  template <int kTile>
  static void load_passing(void const* p, ptrdiff_t stride) {
    fence();
#define FLASHMLA_LOAD_PASSING(tile) \
  if constexpr (kTile == tile) _tile_stream_loadd(tile, p, stride);
    FLASHMLA_FOR_TILE(FLASHMLA_LOAD_PASSING)
  }
  template <int kTile>
  static void store(void* p, ptrdiff_t stride) {
#define FLASHMLA_STORE(tile) \
  if constexpr (kTile == tile) _tile_stored(tile, p, stride);
    FLASHMLA_FOR_TILE(FLASHMLA_STORE)
    fence();
  }
  template <int kC, int kA, int kB>
  static void dot() {
    constexpr int kCase = kC * 64 + kA * 8 + kB;
#define FLASHMLA_DOT(c, a, b)                        \
  if constexpr (kCase == (c) * 64 + (a) * 8 + (b)) { \
    _tile_dpbf16ps(c, a, b);                         \
    return;                                          \
  }
    FLASHMLA_DOT(0, 4, 6)
    FLASHMLA_DOT(1, 5, 6)
    FLASHMLA_DOT(2, 4, 7)
    FLASHMLA_DOT(3, 5, 7)
    FLASHMLA_DOT(0, 4, 7)
    FLASHMLA_DOT(1, 5, 7)
    FLASHMLA_DOT(2, 6, 7)
    FLASHMLA_DOT(3, 4, 7)
    FLASHMLA_DOT(0, 4, 5)
    FLASHMLA_DOT(1, 4, 6)
    FLASHMLA_DOT(2, 4, 5)
    FLASHMLA_DOT(3, 4, 6)
    static_assert(kC < 4 && kA >= 4 && kB >= 4, "sums in tiles 0 to 3, operands in 4 to 7");
    __builtin_trap();  // a combination that is not in the list
  }
#undef FLASHMLA_FOR_TILE
#undef FLASHMLA_ZERO
#undef FLASHMLA_LOAD
#undef FLASHMLA_LOAD_PASSING
#undef FLASHMLA_STORE
#undef FLASHMLA_DOT

 private:
  /// Constant memory: the intrinsic names 8 of the 64 bytes that it reads.
  struct alignas(64) Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static constexpr Config kConfig = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

  /// GCC's intrinsics do not tell the compiler that they read and write memory.
  static void fence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
};

/// What the AMX kernel needs besides tiles.
struct AmxBf16 : Avx512Bf16 {
  static constexpr bool kHasTiles = true;
  static constexpr int kNarrowRowsBf16 = 4;
  using TileUnit = AmxTiles;
};

}  // namespace flashmla::cpu

#pragma GCC pop_options
#else
namespace flashmla::cpu {
/// Elsewhere the row exists, so that the table is the same everywhere, and detection says that it is not usable.
using AmxBf16 = Scalar;
}  // namespace flashmla::cpu
#endif
