// Queries packed for products of BF16 pairs with the rows along the lanes.
#pragma once

#include "cpu/generic/pages.hpp"

namespace flashmla::cpu {

template <class Isa>
struct QueryPairs {
  /// [qk_dim / 2][row][2] of a block
  static uint16_t* of_block(PartTask const& task, int block) {
    return reinterpret_cast<uint16_t*>(task.scratch.queries) + static_cast<ptrdiff_t>(block) * (task.latent + task.rope) * kBlockRows;
  }

  /// Rows that pad the last block are zero.
  static void pack(PartTask const& task) {
    for (int block = 0; block < task.num_blocks; ++block) {
      uint32_t* const out = reinterpret_cast<uint32_t*>(of_block(task, block));
      pack_part(out, task, block, task.q_nope, task.latent);
      pack_part(out + task.latent / 2 * kBlockRows, task, block, task.q_pe, task.rope);
    }
  }

 private:
  static void pack_part(uint32_t* out, PartTask const& task, int block, void const* const* rows, int num) {
    for (int pair = 0; pair < num / 2; pair += 16) {
      uint32_t const* in[kBlockRows];
      for (int r = 0; r < kBlockRows; ++r) {
        int const row = block * kBlockRows + r;
        in[r] = row < task.num_rows ? static_cast<uint32_t const*>(rows[row]) + pair : reinterpret_cast<uint32_t const*>(kZeroToken);
      }
      Isa::transpose_words(out + pair * kBlockRows, kBlockRows, in);
    }
  }
};

}  // namespace flashmla::cpu
