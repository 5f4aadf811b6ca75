// The 128-byte swizzle of Hopper's shared-memory tiles, as TMA writes it and wgmma reads it.
//
// A tile is rows of 128 bytes (64 elements of 2 bytes). Inside every 8 rows (1,024 bytes, the atom, to which the tile's
// base is aligned) the 16-byte column index is XORed with the row, so that the 8 rows of any column lie in all banks.
#pragma once

#include <cstdint>

namespace flashmla::cuda {

inline constexpr int kSwizzleRowBytes = 128;

/// Byte offset of 16-byte column `chunk` (0 .. 7) of `row` in a tile whose base is 1,024-byte aligned.
constexpr uint32_t swizzled_offset(uint32_t row, uint32_t chunk) { return row * kSwizzleRowBytes + ((chunk ^ (row & 7u)) << 4); }

}  // namespace flashmla::cuda
