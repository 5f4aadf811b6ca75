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
  StepRows rows;
  std::vector<int32_t> kv_len;  // [rows.batch]
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
  bool const is_large = batch > 200;
  int32_t const h_q = pick(random, {1, 3, 16, 64, 128});
  int32_t const q_tokens = is_large ? 1 : pick(random, {1, 1, 2, 4});
  if (is_large && h_q / shape.tile_rows > 4) shape.tile_rows = 64;
  return {shape, {batch, q_tokens, h_q}, random_lengths(random, batch)};
}

/// A schedule buffer with junk in it, so that what make_schedule leaves untouched is seen.
inline std::vector<char> made_schedule(PlanCase const& c) {
  std::vector<char> schedule(schedule_bytes(c.shape.max_workers), '\x5a');
  make_schedule(c.shape, c.rows, c.kv_len.data(), schedule.data());
  return schedule;
}

}  // namespace flashmla::core
