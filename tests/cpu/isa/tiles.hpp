// Programs over a tile unit (src/cpu/isa/amx.hpp), so that hardware and model run the same, and the model itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu::test {

/// Operands of one product of tiles in memory, and the distance between their rows.
struct TileOperands {
  char* c;
  char const *a, *b;
  ptrdiff_t c_bytes, a_bytes, b_bytes;
};

/// C += A B by every choice of tiles that the kernel uses, one after the other: 12 times in all.
template <class Unit>
struct TilePrograms {
  static constexpr int kProducts = 12;

  template <int kC, int kA, int kB>
  static void product(TileOperands const& t) {
    Unit::template load<kC>(t.c, t.c_bytes);
    Unit::template load<kA>(t.a, t.a_bytes);
    Unit::template load_passing<kB>(t.b, t.b_bytes);
    Unit::template dot<kC, kA, kB>();
    Unit::template store<kC>(t.c, t.c_bytes);
  }
  static void all_products(TileOperands const& t) {
    Unit::configure();
    product<0, 4, 6>(t), product<1, 5, 6>(t), product<2, 4, 7>(t), product<3, 5, 7>(t);
    product<0, 4, 7>(t), product<1, 5, 7>(t), product<2, 6, 7>(t), product<3, 4, 7>(t);
    product<0, 4, 5>(t), product<1, 4, 6>(t), product<2, 4, 5>(t), product<3, 4, 6>(t);
    Unit::release();
  }
  static void clear(TileOperands const& t) {
    Unit::configure();
    Unit::template load<2>(t.c, t.c_bytes);
    Unit::template zero<2>();
    Unit::template store<2>(t.c, t.c_bytes);
    Unit::release();
  }
};

/// The tile instructions in plain loops. Each thread has registers of its own, like hardware.
struct ModelTiles {
  struct Tile {
    uint8_t row[16][64];
  };
  static Tile& tile(int i) {
    static thread_local Tile tiles[8];
    return tiles[i];
  }
  static void configure() {
    for (int i = 0; i < 8; ++i) std::memset(&tile(i), 0, sizeof(Tile));
  }
  static void release() {
    for (int i = 0; i < 8; ++i) std::memset(&tile(i), 0xff, sizeof(Tile));  // NaN: whoever relies on it is found out
  }
  template <int kTile>
  static void zero() {
    std::memset(&tile(kTile), 0, sizeof(Tile));
  }
  template <int kTile>
  static void load(void const* p, ptrdiff_t stride) {
    for (int r = 0; r < 16; ++r) std::memcpy(tile(kTile).row[r], static_cast<char const*>(p) + r * stride, 64);
  }
  template <int kTile>
  static void load_passing(void const* p, ptrdiff_t stride) {
    load<kTile>(p, stride);
  }
  template <int kTile>
  static void store(void* p, ptrdiff_t stride) {
    for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(p) + r * stride, tile(kTile).row[r], 64);
  }
  template <int kC, int kA, int kB>
  static void dot() {
    for (int m = 0; m < 16; ++m) {
      float sums[16];
      std::memcpy(sums, tile(kC).row[m], sizeof sums);
      for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 16; ++n)
          for (int i = 0; i < 2; ++i) sums[n] += number(tile(kA).row[m], 2 * k + i) * number(tile(kB).row[k], 2 * n + i);
      std::memcpy(tile(kC).row[m], sums, sizeof sums);
    }
  }

 private:
  static float number(uint8_t const* row, int i) {
    uint16_t code;
    float value;
    std::memcpy(&code, row + 2 * i, sizeof code);
    Scalar::widen_bf16(&value, &code, 1);
    return value;
  }
};

/// AMX as this machine saw it: null where the library is built for another architecture.
struct HardwareTiles {
  void (*all_products)(TileOperands const&);
  void (*clear)(TileOperands const&);
};
extern HardwareTiles const kAmxTiles;

}  // namespace flashmla::cpu::test
