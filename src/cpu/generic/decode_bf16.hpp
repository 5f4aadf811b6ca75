// Decode of one part with a BF16 dot product over pairs, accumulating in float32.
//
//   S^T[token][row] = K Q^T       pairs of numbers; keys in place, by 32-bit broadcast; queries packed once
//   P^T = exp2(S^T - max)         rounded to BF16 as pairs of tokens
//   O^T[column][row] += V^T P^T   pairs of tokens; a tile's values are paired up once, into a panel in L2
//
// Rows lie along the lanes everywhere, so softmax and rescaling never cross lanes. While the first block of rows scores
// a tile, the next tile is prefetched to L2 at the pace of the products.
#pragma once

#include "cpu/generic/softmax.hpp"

namespace flashmla::cpu {

template <class Isa>
struct DecodeBf16 {
  static void run(PartTask const& task) {
    pack_queries(task);
    Softmax<Isa>::begin(task);
    Tile tile, next;
    Tiles<Isa>::locate(task, task.first_token, &next);
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens) {
      tile = next;
      Tiles<Isa>::locate(task, token + kTileTokens, &next);
      Tiles<Isa>::stage(task, &tile);
      score(task, tile, next);
      for (int block = 0; block < task.num_blocks; ++block) Softmax<Isa>::template run<true>(task, tile, block);
      pair_values(task, tile);
      weigh_values(task, tile, token == task.first_token);
    }
  }

 private:
  static uint16_t* block_queries(PartTask const& task, int block) {
    return reinterpret_cast<uint16_t*>(task.scratch.queries) + static_cast<ptrdiff_t>(block) * (task.latent + task.rope) * kBlockRows;
  }

  /// queries[block][k / 2][row][2]; rows that pad the last block are zero.
  static void pack_queries(PartTask const& task) {
    for (int r = 0; r < task.num_blocks * kBlockRows; ++r) {
      uint32_t* const out = reinterpret_cast<uint32_t*>(block_queries(task, r / kBlockRows)) + r % kBlockRows;
      char const* const nope = static_cast<char const*>(r < task.num_rows ? task.q_nope[r] : nullptr);
      char const* const pe = static_cast<char const*>(r < task.num_rows ? task.q_pe[r] : nullptr);
      for (int p = 0; p < task.latent / 2; ++p) out[p * kBlockRows] = pair_at(nope, p);
      for (int p = 0; p < task.rope / 2; ++p) out[(task.latent / 2 + p) * kBlockRows] = pair_at(pe, p);
    }
  }
  static uint32_t pair_at(char const* base, int pair) {
    uint32_t value = 0;
    if (base != nullptr) memcpy(&value, base + pair * 4, sizeof value);
    return value;
  }

  /// Groups outside, blocks inside: 16 keys, 18 KiB, stay in L1 while all rows pass.
  static void score(PartTask const& task, Tile const& tile, Tile const& next) {
    float const ones[kBlockRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int const latent_pairs = task.latent / 2, rope_pairs = task.rope / 2;
    for (int g = 0; g < tile.num_groups; ++g) {
      TokenGroup const& group = tile.groups[g];
      for (int block = 0; block < task.num_blocks; ++block) {
        bool const ahead = block == 0 && g < next.num_groups && next.groups[g].in_place;
        TokenGroup const& soon = ahead ? next.groups[g] : group;
        float* const scores = task.scratch.scores + (static_cast<ptrdiff_t>(block) * kTileTokens + g * kGroupTokens) * kBlockRows;
        uint16_t const* const queries = block_queries(task, block);
        Isa::tile_dot_keys(scores, nullptr, queries, latent_pairs, group.latent, group.latent_bytes, soon.latent, soon.latent_bytes);
        Isa::tile_dot_keys(scores, ones, queries + latent_pairs * 2 * kBlockRows, rope_pairs, group.rope, group.rope_bytes, soon.rope, soon.rope_bytes);
      }
    }
  }

  /// panel[column / 16][token / 2][16][2]
  static void pair_values(PartTask const& task, Tile const& tile) {
    for (int g = 0; g < tile.num_groups; ++g) {
      TokenGroup const& group = tile.groups[g];
      for (int t = 0; t < kGroupTokens; t += 2) {
        uint16_t const* const first = reinterpret_cast<uint16_t const*>(group.latent + t * group.latent_bytes);
        uint16_t const* const second = reinterpret_cast<uint16_t const*>(group.latent + (t + 1) * group.latent_bytes);
        uint16_t* const out = reinterpret_cast<uint16_t*>(task.scratch.panel) + (g * kGroupTokens + t) * 16;
        for (int column = 0; column < task.v_dim; column += 16) Isa::interleave(out + column * kTileTokens, first + column, second + column);
      }
    }
  }

  /// Columns outside, blocks inside: 16 columns of the panel, 2 KiB, stay in L1 while all rows pass.
  static void weigh_values(PartTask const& task, Tile const& tile, bool is_first) {
    uint16_t const* const panel = reinterpret_cast<uint16_t const*>(task.scratch.panel);
    for (int column = 0; column < task.v_dim; column += 16) {
      for (int block = 0; block < task.num_blocks; ++block) {
        float* const acc = task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
        uint16_t const* const pairs = task.scratch.pairs + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
        Isa::tile_dot_values(acc, is_first ? nullptr : task.scratch.alpha + block * kBlockRows, pairs, tile.num_groups * kGroupTokens / 2,
                             panel + column * kTileTokens);
      }
    }
  }
};

}  // namespace flashmla::cpu
