// The 64-bit descriptor by which wgmma finds a 128-byte-swizzled tile in shared memory.
//
// Bits 0-13 start address / 16, 16-29 leading byte offset / 16, 32-45 stride byte offset / 16, 62-63 layout (1 = 128 B).
//  - K-major (a row holds consecutive k; Q, K and P): rows of 64 elements, 8-row atoms `stride` bytes apart, 1,024 where they
//    follow one another; the leading offset is not used; the next 16 k lie 32 bytes further on.
//  - N-major (a row holds consecutive n; V as [token, column]): 64 columns a tile, the next 64 columns `leading` bytes
//    further on; 8-token atoms `stride` bytes apart, as above; the next 16 tokens lie two atoms further on.
//  - K-major without swizzle (layout 0): 8 rows x 16 bytes lie together; `leading` bytes to the next 8 k, `stride` bytes to
//    the next 8 rows.
#pragma once

#include <cstdint>

namespace flashmla::cuda {

constexpr uint64_t matrix_descriptor(uint32_t shared_address, uint32_t leading_bytes, uint32_t stride_bytes) {
  return static_cast<uint64_t>((shared_address >> 4) & 0x3fff) | static_cast<uint64_t>((leading_bytes >> 4) & 0x3fff) << 16 |
         static_cast<uint64_t>((stride_bytes >> 4) & 0x3fff) << 32 | static_cast<uint64_t>(1) << 62;
}

inline constexpr uint32_t kAtomBytes = 1024;  // 8 rows of 128 bytes

constexpr uint64_t k_major_descriptor(uint32_t shared_address, uint32_t next_atom_bytes = kAtomBytes) {
  return matrix_descriptor(shared_address, 16, next_atom_bytes);
}
constexpr uint64_t n_major_descriptor(uint32_t shared_address, uint32_t next_columns_bytes, uint32_t next_atom_bytes = kAtomBytes) {
  return matrix_descriptor(shared_address, next_columns_bytes, next_atom_bytes);
}

/// Of a K-major tile without swizzle.
constexpr uint64_t plain_descriptor(uint32_t shared_address, uint32_t leading_bytes, uint32_t stride_bytes) {
  return matrix_descriptor(shared_address, leading_bytes, stride_bytes) & ~(static_cast<uint64_t>(3) << 62);
}

/// The descriptor `bytes` further on. Start addresses stay below 256 KiB, so the low word never carries into the high one;
/// said with 32-bit arithmetic, it is one uniform add a wgmma instead of a chain of 64-bit ones.
constexpr uint64_t advance(uint64_t descriptor, uint32_t bytes) {
  return (descriptor & 0xffffffff00000000ULL) | static_cast<uint32_t>(static_cast<uint32_t>(descriptor) + (bytes >> 4));
}

inline constexpr uint32_t kKMajorStepBytes = 32;  // 16 k of a K-major tile

}  // namespace flashmla::cuda
