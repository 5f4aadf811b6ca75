// Online softmax of a block: 16 rows along the lanes, tokens one after another, nothing reduced across lanes.
#pragma once

#include "cpu/generic/pages.hpp"

namespace flashmla::cpu {

template <class Isa>
struct Softmax {
  using Rows = typename Isa::Rows;

  /// Below every score, yet finite: -inf - -inf would be NaN in rows that have seen nothing.
  static constexpr float kNothingSeen = -0x1.fffffep127f;

  static void begin(PartTask const& task) {
    for (int block = 0; block < task.num_blocks; ++block) {
      Isa::store(task.scratch.row_max + block * kBlockRows, Isa::set1(kNothingSeen));
      Isa::store(task.scratch.row_sum + block * kBlockRows, Isa::set1(0.0f));
    }
  }

  /// Scores that nobody may see become -inf: tokens beyond a row's limit and tokens that are not there.
  static void mask(PartTask const& task, Tile const& tile, int block, float* s) {  // s [tokens of the tile][16]
    int32_t const* limit = task.limit + block * kBlockRows;
    int32_t const end = tile.first_token + tile.num_groups * kGroupTokens;
    uint64_t const missing = tile.missing & (~uint64_t{0} >> (kTileTokens - tile.num_groups * kGroupTokens));
    bool all_seen = missing == 0;
    for (int r = 0; r < kBlockRows; ++r) all_seen = all_seen && (limit[r] >= end || block * kBlockRows + r >= task.num_rows);
    if (all_seen) return;
    for (int t = 0; t < tile.num_groups * kGroupTokens; ++t, s += kBlockRows) {
      bool const nobody = (missing >> t & 1u) != 0;
      Isa::store(s, nobody ? Isa::set1(-__builtin_inff()) : Isa::mask_token(Isa::load(s), limit, tile.first_token + t));
    }
  }

  /// Scores of consecutive tokens with all rows of a block.
  struct BlockScores {
    float* scores;    // [num_tokens][16]
    uint16_t* pairs;  // [num_tokens / 2][16][2] takes probabilities with kPairs
    int num_tokens;   // even
  };

  /// Raises row_max of a block to that of these tokens and returns what older sums and outputs are worth now.
  static Rows raise_max(PartTask const& task, int block, BlockScores const& x) {
    float* const row_max = task.scratch.row_max + block * kBlockRows;
    Rows best = Isa::load(x.scores), other = Isa::load(x.scores + kBlockRows);
    for (int t = 2; t < x.num_tokens; t += 2) {
      best = Isa::max(best, Isa::load(x.scores + t * kBlockRows));
      other = Isa::max(other, Isa::load(x.scores + (t + 1) * kBlockRows));
    }
    Rows const before = Isa::load(row_max);
    Rows const after = Isa::max(Isa::mul(Isa::max(best, other), Isa::set1(task.scale_log2)), before);
    Isa::store(row_max, after);
    Rows const alpha = Isa::exp2(Isa::sub(before, after));
    Isa::store(task.scratch.alpha + block * kBlockRows, alpha);
    return alpha;
  }

  static Rows probability(float const* score, Rows const& scale, Rows const& row_max) {
    return Isa::exp2(Isa::sub(Isa::mul(Isa::load(score), scale), row_max));
  }

  /// Masked scores into probabilities: float32 in place, or BF16 pairs of tokens when kPairs.
  template <bool kPairs>
  static void run(PartTask const& task, int block, BlockScores const& x) {
    Rows const alpha = raise_max(task, block, x);
    Rows const row_max = Isa::load(task.scratch.row_max + block * kBlockRows), scale = Isa::set1(task.scale_log2);
    Rows even = Isa::set1(0.0f), odd = Isa::set1(0.0f);
    for (int t = 0; t < x.num_tokens; t += 2) {
      Rows const first = probability(x.scores + t * kBlockRows, scale, row_max);
      Rows const second = probability(x.scores + (t + 1) * kBlockRows, scale, row_max);
      even = Isa::add(even, first);
      odd = Isa::add(odd, second);
      if constexpr (kPairs) {
        Isa::store_pairs(x.pairs + t * kBlockRows, first, second);
      } else {
        Isa::store(x.scores + t * kBlockRows, first);
        Isa::store(x.scores + (t + 1) * kBlockRows, second);
      }
    }
    float* const row_sum = task.scratch.row_sum + block * kBlockRows;
    Isa::store(row_sum, Isa::add(Isa::mul(Isa::load(row_sum), alpha), Isa::add(even, odd)));
  }
  /// The scores of one tile, where scratch holds those of no more.
  template <bool kPairs>
  static void run_tile(PartTask const& task, Tile const& tile, int block) {
    ptrdiff_t const at = static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
    mask(task, tile, block, task.scratch.scores + at);
    run<kPairs>(task, block, {task.scratch.scores + at, task.scratch.pairs + at, tile.num_groups * kGroupTokens});
  }
};

}  // namespace flashmla::cpu
