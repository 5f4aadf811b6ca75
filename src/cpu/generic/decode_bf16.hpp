// Decode of one part with a BF16 dot product over pairs, accumulating in float32.
//
//   S^T[token][row] = K Q^T       pairs of numbers; keys in place, by 32-bit broadcast; queries packed once
//   P^T = exp2(S^T - max)         rounded to BF16 as pairs of tokens
//   O^T[column][row] += V^T P^T   pairs of tokens; 16 columns of values are paired up while 16 others are multiplied
//
// Rows lie along the lanes everywhere, so softmax and rescaling never cross lanes. While the first block of rows scores
// a tile, the next tile is prefetched to L2 at the pace of the products; addresses of the one after it are translated.
#pragma once

#include "cpu/generic/query_pairs.hpp"
#include "cpu/generic/softmax.hpp"
#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu {

template <class Isa>
struct DecodeBf16 {
  static void run(PartTask const& task) {
    Tile tiles[3];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    Tiles<Isa>::locate(task, task.first_token + kTileTokens, &tiles[1]);
    Prefetcher<Isa>(task, &tiles[0]).all();
    QueryPairs<Isa>::pack(task);
    Softmax<Isa>::begin(task);
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at = (at + 1) % 3) {
      Tile const &tile = tiles[at], &next = tiles[(at + 1) % 3];
      Tile& far = tiles[(at + 2) % 3];
      Tiles<Isa>::locate(task, token + 2 * kTileTokens, &far);
      Prefetcher<Isa>::translate(task, far);
      score(task, tile, next);
      for (int block = 0; block < task.num_blocks; ++block) Softmax<Isa>::template run_tile<true>(task, tile, block);
      weigh_values(task, tile, next, token == task.first_token);
    }
  }

 private:
  /// Groups outside, blocks inside: 16 keys, 18 KiB, stay in L1 while all rows pass.
  static void score(PartTask const& task, Tile const& tile, Tile const& next) {
    float const ones[kBlockRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int const latent_pairs = task.latent / 2, rope_pairs = task.rope / 2;
    for (int g = 0; g < tile.num_groups; ++g) {
      int const first = g * kGroupTokens;
      TokenGroup const group = Tiles<Isa>::gather(task, tile, g, task.scratch.staged);
      for (int block = 0; block < task.num_blocks; ++block) {
        Tile const& soon = block == 0 ? next : tile;
        float* const scores = task.scratch.scores + (static_cast<ptrdiff_t>(block) * kTileTokens + first) * kBlockRows;
        uint16_t const* const queries = QueryPairs<Isa>::of_block(task, block);
        NextKeys const next_latent = {soon.latent + first, 1}, next_rope = {soon.rope + first, 0};
        Isa::tile_dot_keys(scores, nullptr, queries, latent_pairs, {group.latent, group.latent_bytes}, next_latent);
        Isa::tile_dot_keys(scores, ones, queries + latent_pairs * 2 * kBlockRows, rope_pairs, {group.rope, group.rope_bytes}, next_rope);
      }
    }
  }

  /// Columns outside, blocks inside: 16 columns paired up over tokens, 2 KiB, stay in L1 while all rows pass. The first
  /// block of rows pairs up the next columns while it computes.
  static void weigh_values(PartTask const& task, Tile const& tile, Tile const& soon, bool is_first) {
    constexpr ptrdiff_t kStrip = 16 * kTileTokens;  // numbers in 16 columns of a tile
    int const num_pairs = tile.num_groups * kGroupTokens / 2;
    uint16_t* const panel = reinterpret_cast<uint16_t*>(task.scratch.panel);
    Isa::interleave(NextColumns{tile.latent, 0, panel, nullptr, 0}, num_pairs);
    for (int column = 0; column < task.v_dim; column += 16) {
      uint16_t* const strip = panel + (column / 16 % 2) * kStrip;
      NextColumns const next = {tile.latent, (column + 16) * static_cast<ptrdiff_t>(sizeof(uint16_t)),
                                panel + (column / 16 + 1) % 2 * kStrip, soon.latent + 1 + column / 16 % 2 * 2, column / 32 * 64};
      for (int block = 0; block < task.num_blocks; ++block) {
        float* const acc = task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
        float const* const alpha = is_first ? nullptr : task.scratch.alpha + block * kBlockRows;
        uint16_t const* const pairs = task.scratch.pairs + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
        bool const ahead = block == 0 && column + 16 < task.v_dim;
        if (ahead) Isa::template tile_dot_values<true>(acc, alpha, pairs, num_pairs, strip, next);
        else Isa::template tile_dot_values<false>(acc, alpha, pairs, num_pairs, strip, next);
      }
    }
  }
};

}  // namespace flashmla::cpu
