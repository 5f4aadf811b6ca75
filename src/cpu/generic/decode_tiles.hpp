// Decode of one part with a unit that multiplies tiles of 16 x 32 by 32 x 16 BF16 numbers (AMX).
//
//   S^T[token][row] = K Q^T       16 keys in place are tile A; queries packed in pairs, [qk_dim / 2][16][2], are tile B
//   P^T = exp2(S^T - max)         as in decode_bf16.hpp: rows along the lanes; then turned over to [row][token]
//   O[row][column] += P V         16 rows of P are tile A; 16 columns of values, paired up over tokens, are tile B
//
// Four of the eight tiles hold sums, so that products do not wait for each other. Scores: 2 x 2 of them where there are two
// blocks of rows, else 4 groups of tokens. Outputs: two pairs of strips of columns; one pair is added to while the other goes
// to memory and the next one comes, since a store of four tiles at once fills the queue of stores and stops everything behind.
// Whatever a tile register is loaded from or stored to, except keys, lies in memory as one block of 1 KiB: rows further apart
// would share a few sets of L1.
//
// A product of tiles takes 16 cycles, so what limits is the way between L2 and L1, and O is the most that goes it. Hence a
// *step* of kStepTiles tiles of tokens: O comes by once a step, and the rows whose maximum rose are rescaled then; they
// soon are few. Memory is asked for the next step during both products: one alone is too short for it.
#pragma once

#include "cpu/generic/query_pairs.hpp"
#include "cpu/generic/softmax.hpp"
#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu {

template <class Isa>
struct DecodeTiles {
  static constexpr int kStepTiles = 2;  // 4 are 9 % slower at 128 rows and 18 % at 16 (docs/perf/2026-11-26-cpu-amx.md)
  static constexpr int kStepTokens = kStepTiles * kTileTokens;
  static_assert(kStepTokens <= kMaxStepTokens);

  static void run(PartTask const& task) {
    Step steps[3];
    locate(task, task.first_token, &steps[0]);
    locate(task, task.first_token + kStepTokens, &steps[1]);
    Prefetcher<Isa>(task, steps[0].tiles).all();
    QueryPairs<Isa>::pack(task);
    Softmax<Isa>::begin(task);
    Unit::configure();
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kStepTokens, at = (at + 1) % 3) {
      Step const &step = steps[at], &next = steps[(at + 1) % 3];
      Step& far = steps[(at + 2) % 3];
      locate(task, token + 2 * kStepTokens, &far);
      for (int i = 0; i < far.num_tiles; ++i) Prefetcher<Isa>::translate(task, far.tiles[i]);
      for (int i = 0; i < step.num_tiles; ++i) {
        if (token == task.first_token && i + 1 < step.num_tiles) Prefetcher<Isa>(task, &step.tiles[i + 1]).all();
        score(task, step.tiles[i], i, next.tiles[i]);
      }
      for (int block = 0; block < task.num_blocks; ++block) {
        for (int i = 0; i < step.num_tiles; ++i) Softmax<Isa>::mask(task, step.tiles[i], block, tile_scores(task, block, i));
        Softmax<Isa>::template run<true>(task, block, {scores(task, block), pairs(task, block), step.num_groups * kGroupTokens});
        turn_over(task, step, block);
        if (token != task.first_token) rescale(task, block);
      }
      weigh_values(task, step, next, token == task.first_token);
    }
    Unit::release();
  }

 private:
  using Unit = typename Isa::TileUnit;

  struct Step {
    Tile tiles[kStepTiles];
    int num_tiles;   // that have tokens
    int num_groups;  // of all tiles
  };
  static void locate(PartTask const& task, int32_t first_token, Step* step) {
    step->num_tiles = step->num_groups = 0;
    for (int i = 0; i < kStepTiles; ++i) {
      Tiles<Isa>::locate(task, first_token + i * kTileTokens, &step->tiles[i]);
      step->num_groups += step->tiles[i].num_groups;
      if (step->tiles[i].num_groups > 0) step->num_tiles = i + 1;
    }
  }

  static constexpr ptrdiff_t kRowBytes = 64;                                // of a tile register
  static constexpr ptrdiff_t kTileFloats = 256, kTileWords = 512;           // numbers of one
  static constexpr int kDepth = 32;                                         // numbers that one product of tiles sums over
  static constexpr ptrdiff_t kStrip = ptrdiff_t{kStepTokens} * kBlockRows;  // numbers in 16 columns of a step

  static uint16_t* queries(PartTask const& task, int block) { return QueryPairs<Isa>::of_block(task, block); }
  static float* scores(PartTask const& task, int block) {
    return task.scratch.scores + static_cast<ptrdiff_t>(block) * kStepTokens * kBlockRows;
  }
  static float* tile_scores(PartTask const& task, int block, int tile_idx) {
    return scores(task, block) + static_cast<ptrdiff_t>(tile_idx) * kTileTokens * kBlockRows;
  }
  static uint16_t* pairs(PartTask const& task, int block) {
    return task.scratch.pairs + static_cast<ptrdiff_t>(block) * kStepTokens * kBlockRows;
  }
  /// Probabilities, [token / 32][row][32]: they take the place of the scores.
  static uint16_t* weights(PartTask const& task, int block) { return reinterpret_cast<uint16_t*>(scores(task, block)); }
  static uint16_t* strip(PartTask const& task, int i) { return reinterpret_cast<uint16_t*>(task.scratch.panel) + i * kStrip; }
  /// 16 columns of the output of a block.
  static float* acc_tile(PartTask const& task, int block, int column) {
    return task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
  }

  /// Of each tile of the next step: tokens that are asked for while keys are multiplied; the others are while values are.
  static constexpr int kSoonTokens = kTileTokens / 2;

  /// All groups of a tile, those that lie beyond its tokens too: they are zeros. Keys outside, blocks inside.
  static void score(PartTask const& task, Tile const& tile, int tile_idx, Tile const& next) {
    TokenGroup groups[kTileGroups];
    for (int g = 0; g < kTileGroups; ++g)
      groups[g] =
          Tiles<Isa>::gather(task, tile, g, task.scratch.staged + static_cast<ptrdiff_t>(g) * kGroupTokens * (task.latent + task.rope));
    int const num_pairs = task.num_blocks / 2, last = task.num_blocks - 1;
    int const depths = (2 * num_pairs + task.num_blocks % 2) * (task.latent + task.rope) / kDepth;
    Prefetcher<Isa> ahead(task, &next, 1, 0, kSoonTokens);
    ahead.pace = kSoonTokens * (task.latent + task.rope) / 32 / depths + 1;
    for (int g = 0; g < kTileGroups; g += 2) {
      for (int pair = 0; pair < num_pairs; ++pair) {
        float* const out = tile_scores(task, 2 * pair, tile_idx) + g * kTileFloats;
        score_two_blocks(task, groups + g, 2 * pair, &ahead);
        store_sums(out, out + kStepTokens * kBlockRows);
      }
    }
    if (last % 2 != 0) return;
    score_one_block(task, groups, last, &ahead);
    store_sums(tile_scores(task, last, tile_idx), tile_scores(task, last, tile_idx) + 2 * kTileFloats);
  }
  /// One part of keys, latent or rope, and what queries it meets. Loops over `depths` want all of this in registers: a product is
  /// as long as 100 instructions, which is little beside loads that the compiler must repeat after each tile.
  struct KeyPart {
    char const* keys[kTileGroups];
    ptrdiff_t bytes[kTileGroups];
    uint16_t const* queries[2];
    int depths;
  };
  static KeyPart latent_part(PartTask const& task, TokenGroup const* groups, int num_groups, int block) {
    KeyPart part = {{}, {}, {queries(task, block), nullptr}, task.latent / kDepth};
    if (block + 1 < task.num_blocks) part.queries[1] = queries(task, block + 1);
    for (int g = 0; g < num_groups; ++g) part.keys[g] = groups[g].latent, part.bytes[g] = groups[g].latent_bytes;
    return part;
  }
  static KeyPart rope_part(PartTask const& task, TokenGroup const* groups, int num_groups, int block) {
    ptrdiff_t const offset = static_cast<ptrdiff_t>(task.latent) * kBlockRows;
    KeyPart part = {{}, {}, {queries(task, block) + offset, nullptr}, task.rope / kDepth};
    if (block + 1 < task.num_blocks) part.queries[1] = queries(task, block + 1) + offset;
    for (int g = 0; g < num_groups; ++g) part.keys[g] = groups[g].rope, part.bytes[g] = groups[g].rope_bytes;
    return part;
  }

  /// Sums in tiles 0 .. 3; keys pass through 4 and 5, queries through 6 and 7. The keys of two groups are 36 KiB and stay in L1 if
  /// queries, of which each block has 18, do not drive them out.
  static void score_two_blocks(PartTask const& task, TokenGroup const* groups, int block, Prefetcher<Isa>* ahead) {
    zero_sums();
    add_two_blocks(latent_part(task, groups, 2, block), ahead);
    add_two_blocks(rope_part(task, groups, 2, block), ahead);
  }
  static void add_two_blocks(KeyPart const& part, Prefetcher<Isa>* ahead) {
    char const *k0 = part.keys[0], *k1 = part.keys[1];
    ptrdiff_t const bytes0 = part.bytes[0], bytes1 = part.bytes[1];
    uint16_t const *q0 = part.queries[0], *q1 = part.queries[1];
    for (int left = part.depths; left > 0; --left, k0 += kRowBytes, k1 += kRowBytes, q0 += kTileWords, q1 += kTileWords) {
      ahead->some();
      Unit::template load<4>(k0, bytes0);
      Unit::template load<5>(k1, bytes1);
      Unit::template load_passing<6>(q0, kRowBytes);
      Unit::template load_passing<7>(q1, kRowBytes);
      Unit::template dot<0, 4, 6>();
      Unit::template dot<1, 5, 6>();
      Unit::template dot<2, 4, 7>();
      Unit::template dot<3, 5, 7>();
    }
  }
  static void score_one_block(PartTask const& task, TokenGroup const* groups, int block, Prefetcher<Isa>* ahead) {
    zero_sums();
    add_one_block(latent_part(task, groups, kTileGroups, block), ahead);
    add_one_block(rope_part(task, groups, kTileGroups, block), ahead);
  }
  static void add_one_block(KeyPart const& part, Prefetcher<Isa>* ahead) {
    char const *k0 = part.keys[0], *k1 = part.keys[1], *k2 = part.keys[2], *k3 = part.keys[3];
    ptrdiff_t const bytes0 = part.bytes[0], bytes1 = part.bytes[1], bytes2 = part.bytes[2], bytes3 = part.bytes[3];
    uint16_t const* q = part.queries[0];
    for (ptrdiff_t k = 0; k < part.depths * kRowBytes; k += kRowBytes, q += kTileWords) {
      ahead->some();
      Unit::template load<7>(q, kRowBytes);
      Unit::template load<4>(k0 + k, bytes0);
      Unit::template dot<0, 4, 7>();
      Unit::template load<5>(k1 + k, bytes1);
      Unit::template dot<1, 5, 7>();
      Unit::template load<6>(k2 + k, bytes2);
      Unit::template dot<2, 6, 7>();
      Unit::template load<4>(k3 + k, bytes3);
      Unit::template dot<3, 4, 7>();
    }
  }
  /// Tiles 0 .. 3 to two places of two each.
  static void store_sums(float* first, float* second) {
    Unit::template store<0>(first, kRowBytes);
    Unit::template store<1>(first + kTileFloats, kRowBytes);
    Unit::template store<2>(second, kRowBytes);
    Unit::template store<3>(second + kTileFloats, kRowBytes);
  }
  static void zero_sums() {
    Unit::template zero<0>();
    Unit::template zero<1>();
    Unit::template zero<2>();
    Unit::template zero<3>();
  }
  static int depth_steps(Step const& step) { return (step.num_groups + 1) / 2; }

  /// Pairs of tokens, [token / 2][row][2], to tiles of [row][32 tokens]. A last group without a partner gets one of zeros.
  static void turn_over(PartTask const& task, Step const& step, int block) {
    uint16_t* const from = pairs(task, block);
    if (step.num_groups % 2 != 0) memset(from + step.num_groups * kTileFloats, 0, kTileFloats * sizeof(uint16_t));
    for (int s = 0; s < depth_steps(step); ++s) {
      uint32_t const* in[16];
      for (int i = 0; i < 16; ++i) in[i] = reinterpret_cast<uint32_t const*>(from + s * kTileWords) + i * kBlockRows;
      Isa::transpose_words(reinterpret_cast<uint32_t*>(weights(task, block) + s * kTileWords), kBlockRows, in);
    }
  }

  static void rescale(PartTask const& task, int block) {
    for (int r = block * kBlockRows; r < (block + 1) * kBlockRows && r < task.num_rows; ++r) {
      if (task.scratch.alpha[r] == 1.0f) continue;
      typename Isa::Rows const alpha = Isa::set1(task.scratch.alpha[r]);
      float* row = acc_tile(task, block, 0) + r % kBlockRows * 16;
      for (int column = 0; column < task.v_dim; column += 16, row += kTileFloats) Isa::store(row, Isa::mul(Isa::load(row), alpha));
    }
  }

  /// Columns outside, blocks inside: strips of values stay in L1 while all rows pass. Sums of two strips are due in tiles 0 and 1
  /// while those of the two others change places in 2 and 3, and the other way round.
  static void weigh_values(PartTask const& task, Step const& step, Step const& next, bool is_first) {
    int const depths = task.num_blocks * task.v_dim / kHalfColumns * kStepTokens / kDepth;
    Prefetcher<Isa> ahead(task, next.tiles, next.num_tiles, kSoonTokens, kTileTokens);
    ahead.pace = kStepTiles * (kTileTokens - kSoonTokens) * (task.latent + task.rope) / 32 / depths + 1;
    Places places = {nullptr, acc_tile(task, 0, 0), is_first};
    for (int i = 0; i < kMoves; ++i) move<0>(places, i);
    for (int column = 0; column < task.v_dim; column += 2 * kHalfColumns) {
      pair_up(step, column, strip(task, 0));
      pair_up(step, column + kHalfColumns, strip(task, 2));
      for (int block = 0; block < task.num_blocks; ++block) {
        float* const left = acc_tile(task, block, column);
        float* const right = acc_tile(task, block, column + kHalfColumns);
        places.after = right;
        weigh_half<0>(task, step, block, places, &ahead);
        places.before = left;
        bool const is_last_block = block + 1 == task.num_blocks;
        places.after = !is_last_block                           ? acc_tile(task, block + 1, column)
                       : column + 2 * kHalfColumns < task.v_dim ? acc_tile(task, 0, column + 2 * kHalfColumns)
                                                                : nullptr;
        weigh_half<2>(task, step, block, places, &ahead);
        places.before = right;
      }
    }
    places.after = nullptr;
    for (int i = 0; i < kMoves; ++i) move<2>(places, i);
  }
  static constexpr int kHalfColumns = 32;  // of two strips
  static void pair_up(Step const& step, int column, uint16_t* out) {
    for (int tile = 0; tile < step.num_tiles; ++tile) {
      int const num_groups = depth_steps(step) * 2 - tile * kTileGroups,
                num_pairs = (num_groups < kTileGroups ? num_groups : kTileGroups) * kGroupTokens / 2;
      Isa::interleave_two(NextColumns{step.tiles[tile].latent, column * static_cast<ptrdiff_t>(sizeof(uint16_t)), out, nullptr, 0}, kStrip,
                          num_pairs);
      out += kTileTokens * kBlockRows;
    }
  }
  /// Sums of two strips on their way between memory and tiles: [2][kTileFloats] each, or null where there are none.
  struct Places {
    float* before;       // of those in the tiles
    float const* after;  // of those that come next
    bool is_first;       // which are zero
  };
  /// One of four moves, each as long as a product or two: both sums out of tiles kSum and kSum + 1, then both that come next in.
  template <int kSum>
  static void move(Places const& places, int i) {
    if (i == 0) leave<kSum>(places.before);
    else if (i == 1) leave<kSum + 1>(places.before == nullptr ? nullptr : places.before + kTileFloats);
    else if (i == 2) enter<kSum>(places.after, places.is_first);
    else if (i == 3) enter<kSum + 1>(places.after == nullptr ? nullptr : places.after + kTileFloats, places.is_first);
  }
  template <int kTile>
  static void leave(float* to) {
    if (to != nullptr) Unit::template store<kTile>(to, kRowBytes);
  }
  template <int kTile>
  static void enter(float const* from, bool is_first) {
    if (is_first) Unit::template zero<kTile>();
    else if (from != nullptr) Unit::template load<kTile>(from, kRowBytes);
  }
  static constexpr int kMoves = 4;
  static_assert(kMoves == kStepTokens / kDepth, "one after each product");

  /// Sums of strips kSum and kSum + 1 in the tiles of these numbers, while the two other sums change places.
  template <int kSum>
  static void weigh_half(PartTask const& task, Step const& step, int block, Places const& places, Prefetcher<Isa>* ahead) {
    constexpr int kOther = 2 - kSum;
    uint16_t const *p = weights(task, block), *v0 = strip(task, kSum), *v1 = strip(task, kSum + 1);
    int const depths = depth_steps(step);
#pragma GCC unroll 4
    for (int s = 0; s < kMoves; ++s) {
      if (s < depths) {
        ahead->some();
        Unit::template load<4>(p + s * kTileWords, kRowBytes);
        Unit::template load<5>(v0 + s * kTileWords, kRowBytes);
        Unit::template load<6>(v1 + s * kTileWords, kRowBytes);
        Unit::template dot<kSum, 4, 5>();
        Unit::template dot<kSum + 1, 4, 6>();
      }
      move<kOther>(places, s);
    }
  }
};

}  // namespace flashmla::cpu
