// Decode of one part with few rows: the numbers of a token lie along the lanes, and nothing is padded to 16 rows.
//
//   s[row][token] = K q         accumulators for 8 (token, row) pairs stay in registers while keys pass
//   p = exp2(s - max)           tokens along the lanes; one maximum a row and step
//   o[row][column] += p V       a strip of columns stays in registers while the tokens of a step pass
//
// A step is kStepTokens tokens, whose values are still in L1 when their keys are done. With one or two rows memory is the
// limit: half of the next tile's lines are asked for while keys are multiplied, the other half while values are, so that
// memory never waits for arithmetic.
#pragma once

#include "cpu/generic/numbers.hpp"
#include "cpu/generic/softmax.hpp"

namespace flashmla::cpu {

template <class Isa, class Numbers>
struct DecodeNarrow {
  using Rows = typename Isa::Rows;
  using Lanes = typename Isa::Lanes;
  using LanePair = typename Isa::LanePair;
  using Vector = typename Numbers::Vector;
  using Query = typename Numbers::Query;
  using Probability = typename Numbers::Probability;

  static constexpr int kStep = Numbers::kStep;
  static constexpr int kBytes = Numbers::kBytes;
  static constexpr int kSpan = 32;  // numbers that are prefetched together: a cache line of 16-bit numbers, or two lines
  static constexpr int kAccumulators = 8;
  static constexpr int kChunkRows = 4;  // rows that share a pass over the keys, at most
  static constexpr int kStepTokens = 32;

  static void run(PartTask const& task) {
    pack_queries(task);
    begin(task);
    Tile tiles[2];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    prefetch(task, tiles[0]);
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at ^= 1) {
      Tile const &tile = tiles[at], &next = tiles[at ^ 1];
      Tiles<Isa>::locate(task, token + kTileTokens, &tiles[at ^ 1]);
      int const num_tokens = tile.num_groups * kGroupTokens;
      for (int t = 0; t < num_tokens; t += kStepTokens) {
        Step const step = {
            &task, &tile, &next, t, num_tokens - t < kStepTokens ? num_tokens - t : kStepTokens, token + t == task.first_token};
        score(step);
        softmax(step);
        weigh_values(step);
      }
    }
    finish(task);
  }

 private:
  struct Step {
    PartTask const* task;
    Tile const *tile, *next;
    int first, count;  // tokens of the tile; count is a multiple of kGroupTokens
    bool is_first;     // of the part
  };

  static Query* queries(PartTask const& task, int row) {
    return reinterpret_cast<Query*>(task.scratch.queries) + static_cast<ptrdiff_t>(row) * (task.latent + task.rope);
  }
  static float* scores(PartTask const& task, int row) { return task.scratch.scores + static_cast<ptrdiff_t>(row) * kStepTokens; }
  static Probability* probabilities(PartTask const& task, int row) {
    if constexpr (sizeof(Probability) == sizeof(float)) return scores(task, row);
    else return task.scratch.pairs + static_cast<ptrdiff_t>(row) * kStepTokens;
  }
  /// Sums of probabilities, one for each lane of 16 tokens.
  static float* lane_sums(PartTask const& task, int row) {
    return reinterpret_cast<float*>(task.scratch.panel) + static_cast<ptrdiff_t>(row) * 16;
  }

  static void pack_queries(PartTask const& task) {
    for (int r = 0; r < task.num_rows; ++r) {
      Numbers::pack(queries(task, r), static_cast<char const*>(task.q_nope[r]), task.latent);
      Numbers::pack(queries(task, r) + task.latent, static_cast<char const*>(task.q_pe[r]), task.rope);
    }
  }
  static void begin(PartTask const& task) {
    Isa::store(task.scratch.row_max, Isa::set1(Softmax<Isa>::kNothingSeen));
    for (int r = 0; r < task.num_rows; ++r) Isa::store(lane_sums(task, r), Isa::set1(0.0f));
  }
  static void prefetch(PartTask const& task, Tile const& tile) {
    for (int t = 0; t < tile.num_groups * kGroupTokens; ++t) {
      for (int k = 0; k < task.latent; k += kSpan) prefetch_span(tile.latent[t] + k * kBytes);
      for (int k = 0; k < task.rope; k += kSpan) prefetch_span(tile.rope[t] + k * kBytes);
    }
  }
  static void prefetch_span(char const* p) {
    for (int byte = 0; byte < kSpan * kBytes; byte += 64) Isa::prefetch(p + byte);
  }

  /// Rows [row, num_rows) in chunks of at most kChunkRows, of about equal size.
  static int chunk_rows(int rows_left) {
    int const chunks = (rows_left + kChunkRows - 1) / kChunkRows;
    return (rows_left + chunks - 1) / chunks;
  }

  static void score(Step const& step) {
    int const num_rows = step.task->num_rows;
    for (int row = 0; row < num_rows;) {
      int const count = chunk_rows(num_rows - row);
      if (count == 1) score_chunk<1>(step, row);
      else if (count == 2) score_chunk<2>(step, row);
      else if (count == 3) score_chunk<3>(step, row);
      else score_chunk<4>(step, row);
      row += count;
    }
  }
  template <int kRows>
  static void score_chunk(Step const& step, int row) {
    constexpr int kTokens = kAccumulators / kRows;
    PartTask const& task = *step.task;
    Tile const& soon = row == 0 ? *step.next : *step.tile;
    for (int t = step.first; t < step.first + step.count; t += kTokens) {
      Lanes acc[kAccumulators];
#pragma GCC unroll 8
      for (Lanes& lanes : acc) lanes = Isa::set_lanes(0.0f);
      dots<kRows, false>(acc, queries(task, row), task, {step.tile->latent + t, soon.latent + t, task.latent});
      dots<kRows, true>(acc, queries(task, row) + task.latent, task, {step.tile->rope + t, soon.rope + t, task.rope});
      float sums[kAccumulators];
      Isa::sums_of_8(sums, acc);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) memcpy(scores(task, row + r) + (t - step.first), sums + r * kTokens, kTokens * sizeof(float));
    }
  }

  struct KeyRange {
    char const* const* tokens;
    char const* const* soon;  // prefetched meanwhile: all lines, or every second one
    int num;
  };
  /// acc[r * kTokens + t] += q[r] . k[t]
  template <int kRows, bool kAllLines>
  static void dots(Lanes (&acc)[kAccumulators], Query const* q, PartTask const& task, KeyRange const& keys) {
    constexpr int kTokens = kAccumulators / kRows;
    ptrdiff_t const q_stride = task.latent + task.rope;
    char const* token[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) token[t] = keys.tokens[t];
    for (int span = 0; span < keys.num; span += kSpan) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; t += kAllLines ? 1 : 2) prefetch_span(keys.soon[kAllLines ? t : t + (span / kSpan & 1)] + span * kBytes);
#pragma GCC unroll 4
      for (int i = span; i < span + kSpan; i += kStep) {
        if constexpr (kTokens <= kRows) {
          Vector k[kTokens];
#pragma GCC unroll 8
          for (int t = 0; t < kTokens; ++t) k[t] = Numbers::key(token[t] + i * kBytes);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) {
            Vector const query = Numbers::query(q + r * q_stride + i);
#pragma GCC unroll 8
            for (int t = 0; t < kTokens; ++t) acc[r * kTokens + t] = Numbers::dot(acc[r * kTokens + t], query, k[t]);
          }
        } else {
          Vector query[kRows];
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) query[r] = Numbers::query(q + r * q_stride + i);
#pragma GCC unroll 8
          for (int t = 0; t < kTokens; ++t) {
            Vector const k = Numbers::key(token[t] + i * kBytes);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) acc[r * kTokens + t] = Numbers::dot(acc[r * kTokens + t], query[r], k);
          }
        }
      }
    }
  }

  static float largest(Rows const& x) {
    alignas(64) float lane[16];
    Isa::store(lane, x);
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
  }

  static void mask(Step const& step, int row) {
    int32_t const limit = step.task->limit[row], first = step.tile->first_token + step.first;
    uint64_t const missing = step.tile->missing >> step.first;
    float* const s = scores(*step.task, row);
    for (int t = 0; t < step.count; ++t)
      if ((missing >> t & 1u) != 0 || first + t >= limit) s[t] = -__builtin_inff();
  }

  static void softmax(Step const& step) {
    PartTask const& task = *step.task;
    int32_t const end = step.tile->first_token + step.first + step.count;
    alignas(64) float best[kBlockRows];
    Isa::store(best, Isa::set1(Softmax<Isa>::kNothingSeen));
    for (int r = 0; r < task.num_rows; ++r) {
      if (step.tile->missing != 0 || task.limit[r] < end) mask(step, r);
      float const* const s = scores(task, r);
      Rows highest = Isa::load(s);
      for (int t = 16; t < step.count; t += 16) highest = Isa::max(highest, Isa::load(s + t));
      best[r] = largest(highest);
    }
    Rows const scale = Isa::set1(task.scale_log2), before = Isa::load(task.scratch.row_max);
    Rows const after = Isa::max(Isa::mul(Isa::load(best), scale), before);
    Isa::store(task.scratch.row_max, after);
    Isa::store(task.scratch.alpha, Isa::exp2(Isa::sub(before, after)));
    for (int r = 0; r < task.num_rows; ++r) {
      Rows const row_max = Isa::set1(task.scratch.row_max[r]);
      Rows sum = Isa::mul(Isa::load(lane_sums(task, r)), Isa::set1(task.scratch.alpha[r]));
      for (int t = 0; t < step.count; t += 16) {
        Rows const p = Softmax<Isa>::probability(scores(task, r) + t, scale, row_max);
        sum = Isa::add(sum, p);
        Numbers::store_probabilities(probabilities(task, r) + t, p);
      }
      Isa::store(lane_sums(task, r), sum);
    }
  }

  static void weigh_values(Step const& step) {
    int const num_rows = step.task->num_rows;
    for (int row = 0; row < num_rows;) {
      int const count = chunk_rows(num_rows - row);
      if (count == 1) weigh_chunk<1>(step, row);
      else if (count == 2) weigh_chunk<2>(step, row);
      else if (count == 3) weigh_chunk<3>(step, row);
      else weigh_chunk<4>(step, row);
      row += count;
    }
  }
  template <int kRows>
  static void weigh_chunk(Step const& step, int row) {
    constexpr int kVectors = kAccumulators / 2 / kRows;  // of columns that stay in registers
    PartTask const& task = *step.task;
    float* const out = task.scratch.acc + static_cast<ptrdiff_t>(row) * task.v_dim;
    for (int column = 0; column < task.v_dim; column += kVectors * kStep) {
      LanePair acc[kRows * kVectors];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        Lanes const alpha = Isa::set_lanes(step.is_first ? 0.0f : task.scratch.alpha[row + r]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          float const* const from = out + r * task.v_dim + column + v * kStep;
          acc[r * kVectors + v] = step.is_first ? LanePair{alpha, alpha}
                                                : LanePair{Isa::mul_lanes(alpha, Isa::load_lanes(from)),
                                                           Isa::mul_lanes(alpha, Isa::load_lanes(from + Isa::kLanes))};
        }
      }
      weigh_strip<kRows, kVectors>(acc, step, row, column);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          float* const to = out + r * task.v_dim + column + v * kStep;
          Isa::store_lanes(to, acc[r * kVectors + v].first);
          Isa::store_lanes(to + Isa::kLanes, acc[r * kVectors + v].second);
        }
      }
    }
  }
  /// acc[r][v] += sum over the tokens of a step of p[r][token] * columns [column + v * kStep, + kStep) of the token.
  template <int kRows, int kVectors>
  static void weigh_strip(LanePair (&acc)[kRows * kVectors], Step const& step, int row, int column) {
    constexpr int kColumns = kVectors * kStep, kSpans = (kColumns + kSpan - 1) / kSpan;
    PartTask const& task = *step.task;
    char const* const* const tokens = step.tile->latent + step.first;
    bool const ahead = row == 0 && column % kSpan == 0;
    char const* const* const soon = (ahead ? step.next->latent : step.tile->latent) + step.first;
    Probability const* const p = probabilities(task, row);
    for (int t = 0; t < step.count; t += 2) {
#pragma GCC unroll 4
      for (int span = 0; span < kSpans; ++span) {
        int const number = column + span * kSpan;
        prefetch_span(soon[t + 1 - (number / kSpan & 1)] + number * kBytes);  // what `dots` leaves out
      }
      typename Numbers::Weight w[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) w[r] = Numbers::weight(p + r * kStepTokens + t);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        ptrdiff_t const at = (column + v * kStep) * kBytes;
        typename Numbers::Values const values = Numbers::values(tokens[t] + at, tokens[t + 1] + at);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) Numbers::weigh(&acc[r * kVectors + v], w[r], values);
      }
    }
  }

  /// Outputs into memory order; sums over the lanes.
  static void finish(PartTask const& task) {
    alignas(64) float joined[kStep];
    for (int r = 0; r < task.num_rows; ++r) {
      float* const out = task.scratch.acc + static_cast<ptrdiff_t>(r) * task.v_dim;
      for (int column = 0; column < task.v_dim; column += kStep) {
        Numbers::join(joined, {Isa::load_lanes(out + column), Isa::load_lanes(out + column + Isa::kLanes)});
        memcpy(out + column, joined, sizeof joined);
      }
      float const* const lane = lane_sums(task, r);
      float sum = 0;
      for (int i = 0; i < 16; ++i) sum += lane[i];
      task.scratch.row_sum[r] = sum;
    }
  }
};

}  // namespace flashmla::cpu
