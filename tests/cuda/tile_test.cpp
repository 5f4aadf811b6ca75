// Shared-memory tiles against brute force: the swizzle, the descriptors' bits, and who holds which element.
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "cuda/tile/fragment.hpp"
#include "cuda/tile/matrix_descriptor.hpp"
#include "cuda/tile/swizzle.hpp"

namespace flashmla::cuda {
namespace {

// What the hardware does: bits 4-6 of a byte address are XORed with bits 7-9.
uint32_t swizzle_address(uint32_t address) { return address ^ (((address >> 7) & 7u) << 4); }

TEST(Swizzle, EqualsTheAddressBitsOfA128ByteSwizzle) {
  for (uint32_t row = 0; row < 64; ++row)
    for (uint32_t chunk = 0; chunk < 8; ++chunk)
      EXPECT_EQ(swizzled_offset(row, chunk), swizzle_address(row * kSwizzleRowBytes + chunk * 16)) << row << ", " << chunk;
}

TEST(Swizzle, PutsEightRowsOfAColumnIntoAllBanks) {
  for (uint32_t first = 0; first < 64; first += 8)
    for (uint32_t chunk = 0; chunk < 8; ++chunk) {
      std::set<uint32_t> banks;
      for (uint32_t row = first; row < first + 8; ++row) banks.insert(swizzled_offset(row, chunk) % kSwizzleRowBytes);
      EXPECT_EQ(banks.size(), 8u);
    }
}

TEST(MatrixDescriptor, HasEveryFieldInItsPlace) {
  uint64_t const descriptor = matrix_descriptor(0x12340, 8192, 1024);
  EXPECT_EQ(descriptor & 0x3fff, 0x1234u);
  EXPECT_EQ((descriptor >> 16) & 0x3fff, 8192u / 16);
  EXPECT_EQ((descriptor >> 32) & 0x3fff, 1024u / 16);
  EXPECT_EQ((descriptor >> 49) & 7, 0u);  // base offset: tiles are aligned to the swizzle's atom
  EXPECT_EQ(descriptor >> 62, 1u);        // 128-byte swizzle
}

TEST(MatrixDescriptor, AdvancesTheStartAddressOnly) {
  for (uint32_t base : {0u, 0x400u, 0x2c000u})
    for (uint32_t bytes : {kKMajorStepBytes, 2 * kAtomBytes, 8192u * 4}) {
      EXPECT_EQ(advance(k_major_descriptor(base), bytes), k_major_descriptor(base + bytes));
      EXPECT_EQ(advance(n_major_descriptor(base, 8192), bytes), n_major_descriptor(base + bytes, 8192));
    }
}

TEST(MatrixDescriptor, AtomsMayLieApart) {
  EXPECT_EQ(k_major_descriptor(0x400, 4096), matrix_descriptor(0x400, 16, 4096));
  EXPECT_EQ(n_major_descriptor(0x400, 1024, 4096), matrix_descriptor(0x400, 1024, 4096));
}

TEST(Fragment, EveryAccumulatorElementHasOneHolder) {
  constexpr int kBlocks = 8;  // D[64, 64]
  std::set<std::pair<int, int>> elements;
  for (int thread = 0; thread < 128; ++thread) {
    std::set<int> registers;
    for (int block = 0; block < kBlocks; ++block)
      for (int half = 0; half < 2; ++half)
        for (int column = 0; column < 2; ++column) {
          registers.insert(accumulator_index(block, half, column));
          EXPECT_TRUE(elements.emplace(fragment_row(thread, half), fragment_column(thread, block) + column).second);
        }
    EXPECT_EQ(registers.size(), size_t{4 * kBlocks});
    EXPECT_EQ(*registers.rbegin(), 4 * kBlocks - 1);
  }
  EXPECT_EQ(elements.size(), size_t{64 * 64});
  EXPECT_EQ(elements.rbegin()->first, 63);
}

TEST(Fragment, AWarpHolds16RowsAndAQuadOneOfThem) {
  for (int thread = 0; thread < 128; ++thread) {
    EXPECT_EQ(fragment_row(thread, 0) / 16, thread / 32);
    EXPECT_EQ(fragment_row(thread, 1), fragment_row(thread, 0) + 8);
    EXPECT_EQ(fragment_row(thread, 0), fragment_row(thread / 4 * 4, 0));
  }
}

}  // namespace
}  // namespace flashmla::cuda
