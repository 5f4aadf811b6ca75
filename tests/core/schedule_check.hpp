// Shared by the tests of work splitting: random lengths, and what must hold for every schedule.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "core/planner.hpp"
#include "core/schedule.hpp"
#include "core/split.hpp"

namespace flashmla::core {

/// One random planning problem.
struct PlanCase {
  PlanShape shape;
  StepRows rows;                   // without q_offsets: they are the case's own, see `step`
  std::vector<int32_t> kv_len;     // [rows.batch]
  std::vector<int32_t> q_offsets;  // [rows.batch + 1], or empty: uniform

  [[nodiscard]] StepRows step() const {
    StepRows with_offsets = rows;
    if (!q_offsets.empty()) with_offsets.q_offsets = q_offsets.data();
    return with_offsets;
  }
  /// Row tiles of a request, counted apart from the code under test; offsets must be good.
  [[nodiscard]] int32_t row_tiles(int32_t request) const {
    auto const r = static_cast<size_t>(request);
    int64_t const tokens = q_offsets.empty() ? rows.q_tokens : q_offsets[r + 1] - q_offsets[r];
    int64_t const rows_a_head = tokens * (rows.h_q / shape.kv_heads);
    return shape.kv_heads * static_cast<int32_t>((rows_a_head + shape.tile_rows - 1) / shape.tile_rows);
  }
  [[nodiscard]] int64_t num_items() const {
    int64_t items = 0;
    for (int32_t r = 0; r < rows.batch; ++r) items += row_tiles(r);
    return items;
  }
};

inline int32_t pick(std::mt19937& random, std::vector<int32_t> const& values) { return values[random() % values.size()]; }

/// Lengths of one of several temperaments: all zero, short, long, one giant among dwarfs, zeros mixed in, ...
inline std::vector<int32_t> random_lengths(std::mt19937& random, int32_t batch) {
  std::vector<int32_t> lengths(static_cast<size_t>(batch));
  int32_t const kind = static_cast<int32_t>(random() % 7);
  int32_t const limit = pick(random, {1, 64, 65, 200, 4096, 65536, 1 << 20});
  auto const uniform = [&](int32_t high) { return static_cast<int32_t>(random() % (static_cast<uint32_t>(high) + 1)); };
  for (int32_t& length : lengths) {
    switch (kind) {
      case 0:
        length = 0;
        break;
      case 1:
        length = limit;
        break;
      case 2:
        length = uniform(limit);
        break;
      case 3:
        length = random() % 2 ? 0 : uniform(limit);
        break;
      case 4:
        length = uniform(70);
        break;
      case 5:
        length = uniform(1 << (random() % 21));
        break;
      default:
        length = 64 * uniform(limit / 64);
        break;
    }
  }
  if (random() % 4 == 0) lengths[random() % lengths.size()] = 1 << 20;
  return lengths;
}

inline PlanCase random_case(std::mt19937& random) {
  int32_t const batch = random() % 20 == 0 ? pick(random, {1000, 4096, 12000}) : 1 + static_cast<int32_t>(random() % 200);
  PlanShape shape{};
  shape.tile_rows = pick(random, {1, 16, 64, 128, 256});
  shape.tile_tokens = pick(random, {1, 16, 32, 64, 128});
  shape.max_workers = 1 + static_cast<int32_t>(random() % 132);
  shape.part_cost = pick(random, {0, 1, 2, 5, 10, 37});
  shape.tile_cost = pick(random, {1, 1, 2, 7});
  shape.merge_cost = pick(random, {0, 0, 3, 26, 1000});
  bool const is_large = batch > 200;
  int32_t const h_q = pick(random, {1, 3, 16, 64, 128});
  int32_t const q_tokens = is_large ? 1 : pick(random, {1, 1, 2, 4});
  if (is_large && h_q / shape.tile_rows > 4) shape.tile_rows = 64;
  return {shape, {batch, q_tokens, h_q}, random_lengths(random, batch), {}};
}

/// Offsets of one of several temperaments: one token each, none at all, few, one prefill among decodes, zeros mixed in.
inline std::vector<int32_t> random_offsets(std::mt19937& random, int32_t batch, int32_t bound) {
  auto const up_to = [&](int32_t high) { return static_cast<int32_t>(random() % (static_cast<uint32_t>(high) + 1)); };
  int32_t const kind = static_cast<int32_t>(random() % 6);
  std::vector<int32_t> offsets{random() % 3 == 0 ? up_to(9) : 0};
  size_t const prefill = random() % static_cast<size_t>(batch);
  for (int32_t r = 0; r < batch; ++r) {
    int32_t const counts[] = {1, 0, up_to(bound), static_cast<size_t>(r) == prefill ? bound : 1, random() % 2 ? 0 : up_to(bound), bound};
    offsets.push_back(offsets.back() + counts[kind]);
  }
  return offsets;
}

/// The same with offsets, and now and then with rows apart by KV head.
inline PlanCase random_ragged_case(std::mt19937& random) {
  PlanCase c = random_case(random);
  bool const is_large = c.rows.batch > 200;
  c.rows.q_tokens = is_large ? 2 : pick(random, {1, 2, 4, 17, 64});
  while (c.shape.tile_rows < 64 && c.rows.q_tokens * c.rows.h_q / c.shape.tile_rows > 64) c.shape.tile_rows *= 4;
  if (random() % 3 == 0 && c.rows.h_q % 16 == 0) c.shape.kv_heads = pick(random, {2, 4, 8});
  c.q_offsets = random_offsets(random, c.rows.batch, c.rows.q_tokens);
  return c;
}

/// A uniform case or a ragged one.
inline PlanCase any_case(std::mt19937& random) { return random() % 2 ? random_case(random) : random_ragged_case(random); }

/// A schedule buffer with junk in it, so that what make_schedule leaves untouched is seen.
inline std::vector<char> made_schedule(PlanCase const& c) {
  std::vector<char> schedule(schedule_bytes(c.shape.max_workers), '\x5a');
  make_schedule(c.shape, c.step(), c.kv_len.data(), schedule.data());
  return schedule;
}

}  // namespace flashmla::core
