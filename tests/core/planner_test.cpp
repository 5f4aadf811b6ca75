#include "core/planner.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace flashmla::core {
namespace {

constexpr PlanShape kShape{64, 64, 132, 5, 1};

static_assert(num_row_tiles(kShape, 1, 16) == 1 && num_row_tiles(kShape, 1, 128) == 2 && num_row_tiles(kShape, 3, 128) == 6);
constexpr PlanShape kHeadsApart{64, 64, 132, 5, 1, 4};
static_assert(num_row_tiles(kHeadsApart, 1, 16) == 4 && num_row_tiles(kHeadsApart, 3, 128) == 8 && num_row_tiles(kHeadsApart, 0, 128) == 0);
static_assert(num_token_tiles(kShape, 0) == 1 && num_token_tiles(kShape, -5) == 1 && num_token_tiles(kShape, 64) == 1 &&
              num_token_tiles(kShape, 65) == 2);
static_assert(num_token_tiles(kShape, INT32_MAX) == 33554432);
static_assert(item_cost(kShape, 0) == 6 && item_cost(kShape, 4096) == 69);
static_assert(locate(kShape, 0) == 0 && locate(kShape, 5) == 0 && locate(kShape, 6) == 1 && locate(kShape, 8) == 3);

TEST(Planner, CutsLieATileApart) {
  for (int32_t part_cost : {0, 1, 5, 100}) {
    for (int32_t tile_cost : {1, 3}) {
      for (int64_t tiles = 1; tiles < 300; tiles += 7) {
        PlanShape const shape{64, 64, 132, part_cost, tile_cost};
        PlanTotals const totals{part_cost + tiles * tile_cost, tiles, 1,
                                part_cost + tiles * tile_cost};  // one item: the least room that cuts can have
        int32_t const workers = num_useful_workers(shape, totals);
        for (int32_t w = 0; w < workers; ++w)
          ASSERT_GE(cut_position(shape, totals, workers, w + 1) - cut_position(shape, totals, workers, w), tile_cost)
              << w << " of " << workers;
      }
    }
  }
}

TEST(Planner, ItemsStayWholeWhenSplittingSavesNoTile) {
  PlanShape const shape{64, 64, 132, 1, 1};
  auto const totals_of = [&](int32_t items, int64_t tiles) { return PlanTotals{items * (1 + tiles), items * tiles, items, 1 + tiles}; };
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 16)), 1);  // 128 requests of 1k on 132 workers: four idle, no merge
  EXPECT_EQ(num_workers(shape, totals_of(128, 16), 1), 128);
  EXPECT_EQ(workers_per_item(shape, totals_of(132, 16384)), 1);
  EXPECT_EQ(workers_per_item(shape, totals_of(133, 16)), 0);   // more items than workers
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 512)), 1);  // 513 against a share of 498 of 132, but four idle are few
  EXPECT_EQ(workers_per_item(shape, totals_of(127, 512)), 0);  // five are not
  PlanTotals uneven = totals_of(128, 512);
  uneven.item_cost *= 2;
  EXPECT_EQ(workers_per_item(shape, uneven), 0);
  EXPECT_EQ(workers_per_item(shape, totals_of(1, 1)), 1);
  EXPECT_EQ(workers_per_item(shape, totals_of(0, 0)), 0);
  EXPECT_EQ(num_workers(shape, totals_of(0, 0), 0), 0);
}

TEST(Planner, WorkersGetWholeItemsWhereMergingCostsMore) {
  PlanShape shape{128, 64, 66, 8, 4};
  auto const totals_of = [&](int32_t items, int64_t tiles) {
    return PlanTotals{items * (8 + 4 * tiles), items * tiles, items, 8 + 4 * tiles};
  };
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 64)), 0);  // merging costs nothing
  shape.merge_cost = 26;
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 64)), -2);   // 528 against a share of 520
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 128)), -2);  // 1,040 against 1,016
  EXPECT_EQ(workers_per_item(shape, totals_of(128, 512)), 0);   // 4,112 against 3,995
  EXPECT_EQ(workers_per_item(shape, totals_of(100, 64)), 0);
  EXPECT_EQ(num_workers(shape, totals_of(128, 64), -2), 64);
  EXPECT_EQ(num_workers(shape, totals_of(131, 64), -2), 66);
  EXPECT_EQ(workers_per_item(shape, totals_of(66, 64)), 1);
  PlanTotals uneven = totals_of(128, 64);
  uneven.item_cost *= 2;
  EXPECT_EQ(workers_per_item(shape, uneven), 0);
}

TEST(Planner, ItemsGetAsManyWorkersWhereThatIsFair) {
  PlanShape const shape{64, 64, 132, 5, 2};
  auto const totals_of = [&](int32_t items, int64_t tiles) {
    return PlanTotals{items * (5 + 2 * tiles), items * tiles, items, 5 + 2 * tiles};
  };
  EXPECT_EQ(workers_per_item(shape, totals_of(16, 64)), 8);    // 8 tiles each on 128 of 132
  EXPECT_EQ(workers_per_item(shape, totals_of(1, 128)), 128);  // a tile each
  EXPECT_EQ(workers_per_item(shape, totals_of(1, 1024)), 128);
  EXPECT_EQ(workers_per_item(shape, totals_of(64, 8)), 2);
  EXPECT_EQ(workers_per_item(shape, totals_of(40, 640)), 0);  // 3 each would leave 12 workers idle: 214 tiles against a share of 195
  EXPECT_EQ(num_workers(shape, totals_of(16, 64), 8), 128);
  PlanTotals uneven = totals_of(16, 64);
  uneven.item_cost *= 2;
  EXPECT_EQ(workers_per_item(shape, uneven), 0);
  for (int32_t tiles = 1; tiles < 40; ++tiles)
    for (int32_t each = 1; each < 20; ++each) {
      int32_t const parts = num_even_parts(tiles, each), least = tiles / parts;
      ASSERT_EQ(even_part_begin(tiles, parts, 0), 0);
      ASSERT_EQ(even_part_begin(tiles, parts, parts), tiles);
      for (int32_t s = 0; s < parts; ++s) {
        int32_t const size = even_part_begin(tiles, parts, s + 1) - even_part_begin(tiles, parts, s);
        ASSERT_TRUE(size >= 1 && size >= least && size <= least + 1) << tiles << " tiles, part " << s << " of " << parts;
      }
    }
}

TEST(Planner, SearchAgreesWithCounting) {
  PlanTotals const totals{1000, 500, 100, 10};
  for (int32_t workers : {1, 2, 7, 132}) {
    for (int64_t position = 0; position <= totals.cost + 1; ++position) {
      int32_t expected = 0;
      while (expected <= workers && cut_position(kShape, totals, workers, expected) < position) ++expected;
      ASSERT_EQ(first_cut_at_or_after(kShape, totals, workers, position), expected);
    }
  }
}

TEST(Planner, CutsOfTheLargestBatchesDoNotOverflow) {
  PlanShape const shape{64, 1, 132, 1000, 1000};
  int64_t const tiles = int64_t{12000} * 256 * INT32_MAX;  // 6.6e15 tiles; their cost times 132 passes 2^63
  PlanTotals const totals{tiles * 1000, tiles, 12000 * 256, int64_t{INT32_MAX} * 1000};
  for (int32_t w = 0; w <= 132; ++w) {
    long double const ideal = static_cast<long double>(totals.cost) * w / 132;
    EXPECT_NEAR(static_cast<double>(cut_position(shape, totals, 132, w) - ideal), 0, 2e6) << w;
  }
}

}  // namespace
}  // namespace flashmla::core
