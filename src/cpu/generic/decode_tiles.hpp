// Decode of one part with a unit that multiplies tiles of 16 x 32 by 32 x 16 BF16 numbers (AMX).
//
//   S^T[token][row] = K Q^T       16 keys in place are tile A; queries packed in pairs, [qk_dim / 2][16][2], are tile B
//   P^T = exp2(S^T - max)         as in decode_bf16.hpp: rows along the lanes; then turned over to [row][token]
//   O[row][column] += P V         16 rows of P are tile A; 16 columns of values, paired up over tokens, are tile B
//
// Four of the eight tiles hold sums, so that products do not wait for each other: 2 x 2 of them where there are two
// blocks of rows, else 4 groups of tokens or 4 strips of columns. O lies by rows; after a tile of tokens only the rows
// whose maximum rose are rescaled, and these soon are few.
#pragma once

#include "cpu/generic/query_pairs.hpp"
#include "cpu/generic/softmax.hpp"
#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu {

template <class Isa>
struct DecodeTiles {
  static void run(PartTask const& task) {
    Tile tiles[2];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    Prefetcher<Isa>(task, tiles[0]).all();
    QueryPairs<Isa>::pack(task);
    Softmax<Isa>::begin(task);
    Unit::configure();
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at ^= 1) {
      Tile const& tile = tiles[at];
      Tiles<Isa>::locate(task, token + kTileTokens, &tiles[at ^ 1]);
      Prefetcher<Isa> ahead(task, tiles[at ^ 1]);
      score(task, tile, &ahead);
      for (int block = 0; block < task.num_blocks; ++block) {
        Softmax<Isa>::template run<true>(task, tile, block);
        turn_over(task, tile, block);
        if (token != task.first_token) rescale(task, block);
      }
      weigh_values(task, tile, token == task.first_token);
    }
    Unit::release();
  }

 private:
  using Unit = typename Isa::TileUnit;

  static constexpr ptrdiff_t kRowBytes = 64;                     // of a tile register
  static constexpr int kDepth = 32;                              // numbers that one product of tiles sums over
  static constexpr ptrdiff_t kStrip = kTileTokens * kBlockRows;  // numbers in 16 columns of a tile of tokens
  static constexpr ptrdiff_t kWeightBytes = kTileTokens * sizeof(uint16_t);

  static uint16_t* queries(PartTask const& task, int block) { return QueryPairs<Isa>::of_block(task, block); }
  static float* scores(PartTask const& task, int block) {
    return task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
  }
  /// Probabilities, [row][token]: they take the place of the scores.
  static uint16_t* weights(PartTask const& task, int block) { return reinterpret_cast<uint16_t*>(scores(task, block)); }
  static uint16_t* strip(PartTask const& task, int i) { return reinterpret_cast<uint16_t*>(task.scratch.panel) + i * kStrip; }

  /// All groups of a tile, those that lie beyond its tokens too: they are zeros.
  static void score(PartTask const& task, Tile const& tile, Prefetcher<Isa>* ahead) {
    TokenGroup groups[kTileGroups];
    for (int g = 0; g < kTileGroups; ++g)
      groups[g] =
          Tiles<Isa>::gather(task, tile, g, task.scratch.staged + static_cast<ptrdiff_t>(g) * kGroupTokens * (task.latent + task.rope));
    int const pairs = task.num_blocks / 2, steps = (task.latent + task.rope) / kDepth * (2 * pairs + task.num_blocks % 2);
    int const pace = kTileTokens * (task.latent + task.rope) / 32 / steps + 1;
    for (int block = 0; block < 2 * pairs; block += 2) {
      score_two_blocks(task, groups, 0, block, ahead, pace);
      score_two_blocks(task, groups, 2, block, ahead, pace);
    }
    if (task.num_blocks % 2 != 0) score_one_block(task, groups, task.num_blocks - 1, ahead, pace);
  }
  /// Sums in tiles 0 .. 3; keys pass through 4 and 5, queries through 6 and 7.
  static void score_two_blocks(PartTask const& task, TokenGroup const* groups, int g, int block, Prefetcher<Isa>* ahead, int pace) {
    zero_sums();
    for (int k = 0; k < task.latent + task.rope; k += kDepth) {
      ahead->some(pace);
      load_keys<4>(task, groups[g], k);
      load_keys<5>(task, groups[g + 1], k);
      Unit::template load<6>(queries(task, block) + k * kBlockRows, kRowBytes);
      Unit::template load<7>(queries(task, block + 1) + k * kBlockRows, kRowBytes);
      Unit::template dot<0, 4, 6>();
      Unit::template dot<1, 5, 6>();
      Unit::template dot<2, 4, 7>();
      Unit::template dot<3, 5, 7>();
    }
    constexpr ptrdiff_t kGroup = kGroupTokens * kBlockRows;
    Unit::template store<0>(scores(task, block) + g * kGroup, kRowBytes);
    Unit::template store<1>(scores(task, block) + (g + 1) * kGroup, kRowBytes);
    Unit::template store<2>(scores(task, block + 1) + g * kGroup, kRowBytes);
    Unit::template store<3>(scores(task, block + 1) + (g + 1) * kGroup, kRowBytes);
  }
  static void score_one_block(PartTask const& task, TokenGroup const* groups, int block, Prefetcher<Isa>* ahead, int pace) {
    zero_sums();
    for (int k = 0; k < task.latent + task.rope; k += kDepth) {
      ahead->some(pace);
      Unit::template load<7>(queries(task, block) + k * kBlockRows, kRowBytes);
      load_keys<4>(task, groups[0], k);
      Unit::template dot<0, 4, 7>();
      load_keys<5>(task, groups[1], k);
      Unit::template dot<1, 5, 7>();
      load_keys<6>(task, groups[2], k);
      Unit::template dot<2, 6, 7>();
      load_keys<4>(task, groups[3], k);
      Unit::template dot<3, 4, 7>();
    }
    constexpr ptrdiff_t kGroup = kGroupTokens * kBlockRows;
    Unit::template store<0>(scores(task, block), kRowBytes);
    Unit::template store<1>(scores(task, block) + kGroup, kRowBytes);
    Unit::template store<2>(scores(task, block) + 2 * kGroup, kRowBytes);
    Unit::template store<3>(scores(task, block) + 3 * kGroup, kRowBytes);
  }
  static void zero_sums() {
    Unit::template zero<0>();
    Unit::template zero<1>();
    Unit::template zero<2>();
    Unit::template zero<3>();
  }
  template <int kTile>
  static void load_keys(PartTask const& task, TokenGroup const& group, int k) {
    if (k < task.latent) Unit::template load<kTile>(group.latent + k * 2, group.latent_bytes);
    else Unit::template load<kTile>(group.rope + (k - task.latent) * 2, group.rope_bytes);
  }

  static int depth_steps(Tile const& tile) { return (tile.num_groups + 1) / 2; }

  /// Pairs of tokens, [token / 2][row][2], to [row][token]. A last group without a partner gets one of zeros.
  static void turn_over(PartTask const& task, Tile const& tile, int block) {
    uint16_t* const pairs = task.scratch.pairs + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
    if (tile.num_groups % 2 != 0) {
      constexpr ptrdiff_t kGroup = kGroupTokens * kBlockRows;
      memset(pairs + tile.num_groups * kGroup, 0, kGroup * sizeof(uint16_t));
    }
    for (int s = 0; s < depth_steps(tile); ++s) {
      uint32_t const* in[16];
      for (int i = 0; i < 16; ++i) in[i] = reinterpret_cast<uint32_t const*>(pairs + s * kDepth * kBlockRows) + i * kBlockRows;
      Isa::transpose_words(reinterpret_cast<uint32_t*>(weights(task, block) + s * kDepth), kTileTokens / 2, in);
    }
  }

  static void rescale(PartTask const& task, int block) {
    for (int r = block * kBlockRows; r < (block + 1) * kBlockRows && r < task.num_rows; ++r) {
      if (task.scratch.alpha[r] == 1.0f) continue;
      typename Isa::Rows const alpha = Isa::set1(task.scratch.alpha[r]);
      float* const row = task.scratch.acc + static_cast<ptrdiff_t>(r) * task.v_dim;
      for (int column = 0; column < task.v_dim; column += 16) Isa::store(row + column, Isa::mul(Isa::load(row + column), alpha));
    }
  }

  /// Columns outside, blocks inside: strips of values stay in L1 while all rows pass.
  static void weigh_values(PartTask const& task, Tile const& tile, bool is_first) {
    int const num_pairs = depth_steps(tile) * kDepth / 2;
    for (int column = 0; column < task.v_dim; column += 64) {
      for (int i = 0; i < 4; ++i)
        Isa::interleave(NextColumns{tile.latent, (column + 16 * i) * static_cast<ptrdiff_t>(sizeof(uint16_t)), strip(task, i), nullptr, 0},
                        num_pairs);
      int block = 0;
      for (; block + 2 <= task.num_blocks; block += 2) {
        weigh_two_blocks(task, tile, block, column, 0, is_first);
        weigh_two_blocks(task, tile, block, column, 2, is_first);
      }
      if (block < task.num_blocks) weigh_one_block(task, tile, block, column, is_first);
    }
  }
  /// Sums in tiles 0 .. 3; probabilities pass through 4 and 5, values through 6 and 7.
  static void weigh_two_blocks(PartTask const& task, Tile const& tile, int block, int column, int i, bool is_first) {
    ptrdiff_t const acc_bytes = task.v_dim * static_cast<ptrdiff_t>(sizeof(float));
    float* const c0 = task.scratch.acc + static_cast<ptrdiff_t>(block) * kBlockRows * task.v_dim + column + 16 * i;
    float* const c1 = c0 + static_cast<ptrdiff_t>(kBlockRows) * task.v_dim;
    if (is_first) {
      zero_sums();
    } else {
      Unit::template load<0>(c0, acc_bytes);
      Unit::template load<1>(c0 + 16, acc_bytes);
      Unit::template load<2>(c1, acc_bytes);
      Unit::template load<3>(c1 + 16, acc_bytes);
    }
    for (int s = 0; s < depth_steps(tile); ++s) {
      Unit::template load<4>(weights(task, block) + s * kDepth, kWeightBytes);
      Unit::template load<5>(weights(task, block + 1) + s * kDepth, kWeightBytes);
      Unit::template load<6>(strip(task, i) + s * kDepth * kBlockRows, kRowBytes);
      Unit::template load<7>(strip(task, i + 1) + s * kDepth * kBlockRows, kRowBytes);
      Unit::template dot<0, 4, 6>();
      Unit::template dot<1, 4, 7>();
      Unit::template dot<2, 5, 6>();
      Unit::template dot<3, 5, 7>();
    }
    Unit::template store<0>(c0, acc_bytes);
    Unit::template store<1>(c0 + 16, acc_bytes);
    Unit::template store<2>(c1, acc_bytes);
    Unit::template store<3>(c1 + 16, acc_bytes);
  }
  static void weigh_one_block(PartTask const& task, Tile const& tile, int block, int column, bool is_first) {
    ptrdiff_t const acc_bytes = task.v_dim * static_cast<ptrdiff_t>(sizeof(float));
    float* const c = task.scratch.acc + static_cast<ptrdiff_t>(block) * kBlockRows * task.v_dim + column;
    if (is_first) {
      zero_sums();
    } else {
      Unit::template load<0>(c, acc_bytes);
      Unit::template load<1>(c + 16, acc_bytes);
      Unit::template load<2>(c + 32, acc_bytes);
      Unit::template load<3>(c + 48, acc_bytes);
    }
    for (int s = 0; s < depth_steps(tile); ++s) {
      ptrdiff_t const at = static_cast<ptrdiff_t>(s) * kDepth * kBlockRows;
      Unit::template load<7>(weights(task, block) + s * kDepth, kWeightBytes);
      Unit::template load<4>(strip(task, 0) + at, kRowBytes);
      Unit::template dot<0, 7, 4>();
      Unit::template load<5>(strip(task, 1) + at, kRowBytes);
      Unit::template dot<1, 7, 5>();
      Unit::template load<6>(strip(task, 2) + at, kRowBytes);
      Unit::template dot<2, 7, 6>();
      Unit::template load<4>(strip(task, 3) + at, kRowBytes);
      Unit::template dot<3, 7, 4>();
    }
    Unit::template store<0>(c, acc_bytes);
    Unit::template store<1>(c + 16, acc_bytes);
    Unit::template store<2>(c + 32, acc_bytes);
    Unit::template store<3>(c + 48, acc_bytes);
  }
};

}  // namespace flashmla::cpu
