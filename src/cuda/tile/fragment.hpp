// Which (row, column) a thread's registers hold in a wgmma accumulator D[64, n], and in an A fragment [64, 16].
//
// Thread t of a warpgroup: warp t / 32 has rows 16 * warp .. + 15; inside, lane l has rows l / 4 and l / 4 + 8 and, of
// every 8 columns, the two at 2 * (l % 4). Accumulator register i: column block i / 4, row half (i / 2) % 2, column i % 2.
// An A fragment's four 32-bit registers are (half 0, block 0), (half 1, block 0), (half 0, block 1), (half 1, block 1),
// so accumulator blocks 2k and 2k + 1, packed to 16 bits, are the A fragment of k-step k.
#pragma once

namespace flashmla::cuda {

constexpr int fragment_row(int thread, int half) { return (thread / 32) * 16 + (thread % 32) / 4 + 8 * half; }
constexpr int fragment_column(int thread, int block) { return block * 8 + 2 * (thread % 4); }
constexpr int accumulator_index(int block, int half, int column) { return block * 4 + half * 2 + column; }

}  // namespace flashmla::cuda
