// What every schedule promises, over thousands of random vectors of lengths and query offsets.
#include "core/split.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "core/parts.hpp"
#include "core/schedule_check.hpp"

namespace flashmla::core {
namespace {

/// Every (request, row tile) has parts that cover its tokens once and in order; a part is empty only where the length is
/// 0, and then it is the only one.
void expect_exact_cover(PlanCase const& c, std::vector<flashmla_part> const& parts) {
  size_t at = 0;
  for (int32_t r = 0; r < c.rows.batch; ++r) {
    int32_t const length = c.kv_len[static_cast<size_t>(r)];
    for (int32_t t = 0; t < c.row_tiles(r); ++t) {
      int32_t covered = 0, split = 0;
      size_t const first = at;
      for (; at < parts.size() && parts[at].request == r && parts[at].row_tile == t; ++at, ++split) {
        flashmla_part const& part = parts[at];
        ASSERT_EQ(part.first_token, covered);
        ASSERT_EQ(part.split, split);
        ASSERT_EQ(part.first_token % c.shape.tile_tokens, 0);
        if (length > 0) {
          ASSERT_LT(part.first_token, part.last_token);
        }
        covered = part.last_token;
      }
      ASSERT_EQ(covered, length);
      ASSERT_GE(split, 1);
      if (length == 0) {
        ASSERT_EQ(split, 1);
      }
      for (size_t i = first; i < at; ++i) ASSERT_EQ(parts[i].num_splits, split);
    }
  }
  ASSERT_EQ(at, parts.size());
}

/// The sums over a case's items.
PlanTotals totals_of(PlanCase const& c) {
  PlanTotals totals{0, 0, 0, 0};
  for (int32_t r = 0; r < c.rows.batch; ++r) {
    int32_t const row_tiles = c.row_tiles(r), length = c.kv_len[static_cast<size_t>(r)];
    totals.cost += row_tiles * item_cost(c.shape, length);
    totals.tiles += static_cast<int64_t>(row_tiles) * num_token_tiles(c.shape, length);
    totals.items += row_tiles;
    if (row_tiles > 0) totals.item_cost = std::max(totals.item_cost, item_cost(c.shape, length));
  }
  return totals;
}

/// Costs are counted from the parts alone; the bounds are those that planner.hpp states.
void expect_balance(PlanCase const& c, ScheduleHeader const& header, std::vector<flashmla_part> const& parts) {
  int64_t const p = c.shape.part_cost, t = c.shape.tile_cost;
  std::vector<int64_t> cost(static_cast<size_t>(header.num_workers), 0);
  int64_t items = 0, total = 0, tiles_of_all = 0;
  for (flashmla_part const& part : parts) {
    int64_t const tiles = part.last_token == part.first_token ? 1 : ceil_div(part.last_token - part.first_token, c.shape.tile_tokens);
    cost[static_cast<size_t>(part.worker)] += p + t * tiles;
    total += p + t * tiles;
    tiles_of_all += tiles;
    items += part.split == 0;
  }
  int64_t const reopened = static_cast<int64_t>(parts.size()) - items;
  // Where items are whole or even, workers that would only have had a share of some item go idle; the fair share counts them,
  // unless they are very few.
  int32_t const per_item = workers_per_item(c.shape, totals_of(c));
  PlanTotals const totals{0, tiles_of_all, static_cast<int32_t>(items), 0};
  int64_t const useful = per_item > 0 ? num_sharing_workers(c.shape, totals, header.num_workers) : num_useful_workers(c.shape, totals);
  if (per_item > 0) {
    ASSERT_EQ(header.num_workers, per_item * items);
    for (flashmla_part const& part : parts) ASSERT_LE(part.num_splits, per_item);
  }
  int64_t const budget_times_workers = total - reopened * p + (useful - 1) * p;
  if (per_item < 0) {
    ASSERT_EQ(header.num_workers, ceil_div(items, -per_item));
    ASSERT_EQ(reopened, 0);
    for (int64_t const each : cost) ASSERT_LT((each - c.shape.merge_cost) * useful, budget_times_workers);
    return;
  }
  for (int64_t const each : cost) {
    ASSERT_LT((each - t) * useful, budget_times_workers);  // not a whole tile above the fair share
    if (per_item > 1) continue;
    ASSERT_LT(each * useful, total + useful * (p + t));  // less than one unit, opened, above the mean
    if (per_item == 0) {
      ASSERT_GT((each + 2 * p + t) * useful, budget_times_workers);  // and little below it
    }
  }
}

void expect_slots(PlanCase const& c, ScheduleHeader const& header, std::vector<flashmla_part> const& parts) {
  std::set<int32_t> slots;
  for (flashmla_part const& part : parts) {
    if (part.num_splits == 1) continue;
    int32_t const slot = partial_slot(part.worker, part.split);
    ASSERT_TRUE(slots.insert(slot).second) << "slot " << slot << " has two partial results";
    ASSERT_LT(slot, num_partial_slots(c.shape.max_workers));
  }
  ASSERT_LE(slots.size(), static_cast<size_t>(2 * header.num_workers));
}

void expect_layout(PlanCase const& c, std::vector<char>& schedule, std::vector<flashmla_part> const& parts) {
  ScheduleView const view = schedule_view(schedule.data(), c.shape.max_workers);
  ASSERT_TRUE(schedule_matches(*view.header, c.shape, c.step()));
  int32_t const workers = view.header->num_workers;
  ASSERT_GE(workers, 1);
  for (int32_t w = workers; w <= c.shape.max_workers; ++w) {
    WorkerBegin const& begin = view.begins[w];
    ASSERT_TRUE(begin.request == c.rows.batch && begin.row_tile == 0 && begin.tile == 0 && begin.split == 0 && begin.num_splits == 0);
  }
  std::vector<SplitItem> expected(static_cast<size_t>(c.shape.max_workers), SplitItem{});
  size_t count = 0;
  for (flashmla_part const& part : parts)
    if (part.split == 0 && part.num_splits > 1) expected[count++] = {part.request, part.row_tile, part.worker, part.num_splits};
  ASSERT_TRUE(is_followable(c.shape, view));
  ASSERT_EQ(view.header->num_split_items, static_cast<int32_t>(count));
  ASSERT_EQ(std::memcmp(view.splits, expected.data(), expected.size() * sizeof(SplitItem)), 0);
  for (flashmla_part const& part : parts) {  // split s of an item is in worker first_worker + s
    if (part.split > 0) {
      ASSERT_EQ(view.begins[part.worker].split, part.split);
      ASSERT_EQ(view.begins[part.worker].num_splits, part.num_splits);
    }
  }
}

TEST(Split, HoldsItsPromisesForRandomLengths) {
  std::mt19937 random(20261122);
  for (int i = 0; i < 8000; ++i) {
    PlanCase const c = any_case(random);
    SCOPED_TRACE("case " + std::to_string(i) + ": batch " + std::to_string(c.rows.batch) + ", workers " +
                 std::to_string(c.shape.max_workers));
    std::vector<char> schedule = made_schedule(c);
    ScheduleHeader const& header = *schedule_view(schedule.data(), c.shape.max_workers).header;
    std::vector<flashmla_part> const parts = list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data());
    expect_exact_cover(c, parts);
    if (!parts.empty()) expect_balance(c, header, parts);
    expect_slots(c, header, parts);
    expect_layout(c, schedule, parts);
    if (HasFatalFailure()) return;
  }
}

void list_split_items(int32_t workers, ScheduleView const& view) {
  for (int32_t w = 1; w < workers; ++w) {
    if (view.begins[w].split != 1) continue;
    int32_t splits = 2;
    while (w + splits - 1 < workers && view.begins[w + splits - 1].split == splits) ++splits;
    view.splits[view.header->num_split_items++] = {view.begins[w].request, view.begins[w].row_tile, w - 1, splits};
  }
}

/// The way of a device: each request finds its cuts by itself, from the prefix sum of costs and the totals.
std::vector<char> searched_schedule(PlanCase const& c) {
  PlanShape const& shape = c.shape;
  std::vector<int64_t> starts{0};
  std::vector<WorkerBegin> items;
  for (int32_t r = 0; r < c.rows.batch; ++r) {
    int32_t const row_tiles = c.row_tiles(r), length = c.kv_len[static_cast<size_t>(r)];
    starts.push_back(starts.back() + row_tiles * item_cost(shape, length));
    for (int32_t t = 0; t < row_tiles; ++t) items.push_back({r, t, 0, 0, 0});
  }
  PlanTotals const totals = totals_of(c);
  bool const is_ragged = !c.q_offsets.empty();
  int32_t const per_item = workers_per_item(shape, totals), workers = num_workers(shape, totals, per_item);
  std::vector<char> schedule(schedule_bytes(shape.max_workers), 0);
  ScheduleView const view = schedule_view(schedule.data(), shape.max_workers);
  *view.header = {schedule_magic(shape.max_workers, shape.kv_heads),
                  c.rows.batch,
                  is_ragged ? 0 : c.rows.q_tokens,
                  is_ragged ? 0 : c.row_tiles(0),
                  std::max(workers, is_ragged ? 1 : 0),
                  0,
                  static_cast<int16_t>(shape.tile_tokens),
                  static_cast<int16_t>(per_item),
                  shape.tile_rows};
  for (int32_t w = workers; w <= shape.max_workers; ++w) view.begins[w] = {c.rows.batch, 0, 0, 0, 0};
  if (per_item > 0) {
    items.push_back({c.rows.batch, 0, 0, 0, 0});
    for (int32_t w = 0; w < workers; ++w) {
      auto const item = static_cast<size_t>(w / per_item);
      int32_t const tiles = num_token_tiles(shape, c.kv_len[static_cast<size_t>(items[item].request)]);
      int32_t const parts = num_even_parts(tiles, per_item), split = w % per_item;
      view.begins[w] = split < parts ? items[item] : items[item + 1];
      if (split == 0 || split >= parts) continue;
      view.begins[w].tile = even_part_begin(tiles, parts, split);
      view.begins[w].split = static_cast<int16_t>(split), view.begins[w].num_splits = static_cast<int16_t>(parts);
    }
    list_split_items(workers, view);
    if (is_ragged) view.begins[0] = {0, 0, 0, 0, 0};
    return schedule;
  }
  if (per_item < 0) {
    for (int32_t w = 0; w < workers; ++w) view.begins[w] = items[static_cast<size_t>(w) * static_cast<size_t>(-per_item)];
    if (is_ragged) view.begins[0] = {0, 0, 0, 0, 0};
    return schedule;
  }
  for (int32_t r = c.rows.batch - 1; r >= 0; --r) {  // any order will do
    int64_t const cost = item_cost(shape, c.kv_len[static_cast<size_t>(r)]);
    int32_t const end = first_cut_at_or_after(shape, totals, workers, starts[static_cast<size_t>(r) + 1]);
    for (int32_t w = first_cut_at_or_after(shape, totals, workers, starts[static_cast<size_t>(r)]); w < end; ++w) {
      int64_t const position = cut_position(shape, totals, workers, w) - starts[static_cast<size_t>(r)];
      int32_t const row_tile = static_cast<int32_t>(position / cost);
      int64_t const item_start = starts[static_cast<size_t>(r)] + row_tile * cost;
      int32_t const tile = locate(shape, position - row_tile * cost);
      int32_t const first_worker = first_cut_at_or_after(shape, totals, workers, item_start + shape.part_cost + shape.tile_cost) - 1;
      int32_t const num_splits = first_cut_at_or_after(shape, totals, workers, item_start + cost) - first_worker;
      view.begins[w] = {r, row_tile, tile, 0, 0};
      if (tile == 0) continue;
      view.begins[w].split = static_cast<int16_t>(w - first_worker);
      view.begins[w].num_splits = static_cast<int16_t>(num_splits);
    }
  }
  if (is_ragged) view.begins[0] = {0, 0, 0, 0, 0};
  list_split_items(workers, view);
  return schedule;
}

TEST(Split, LoopAndSearchGiveTheSameBits) {
  std::mt19937 random(7);
  for (int i = 0; i < 4000; ++i) {
    PlanCase const c = any_case(random);
    std::vector<char> const looped = made_schedule(c), searched = searched_schedule(c);
    ASSERT_EQ(looped, searched) << "case " << i;
  }
}

/// Every item of the case, in order, has parts that cover its tokens once and in order; only parts past the end are empty.
void expect_cover_with_empty_parts(PlanCase const& c, std::vector<flashmla_part> const& parts) {
  size_t at = 0;
  for (int32_t r = 0; r < c.rows.batch; ++r) {
    for (int32_t t = 0; t < c.row_tiles(r); ++t) {
      int32_t done = 0, split = 0;
      for (bool is_last = false; !is_last; ++at, ++split) {
        ASSERT_LT(at, parts.size());
        flashmla_part const& part = parts[at];
        ASSERT_EQ(part.request, r);
        ASSERT_EQ(part.row_tile, t);
        ASSERT_EQ(part.split, split);
        ASSERT_EQ(part.first_token, done);
        ASSERT_LE(part.first_token, part.last_token);
        done = part.last_token;
        is_last = split == part.num_splits - 1;
      }
      ASSERT_EQ(done, c.kv_len[static_cast<size_t>(r)]);
    }
  }
  ASSERT_EQ(at, parts.size());
}

TEST(Split, EarlierLengthsCostNoCorrectness) {
  std::mt19937 random(11);
  for (int i = 0; i < 1000; ++i) {
    PlanCase c = random_case(random);
    std::vector<char> schedule = made_schedule(c);
    if (i % 2) c.kv_len = random_lengths(random, c.rows.batch);
    else
      for (int32_t& length : c.kv_len) ++length;  // one decoding step
    expect_cover_with_empty_parts(c, list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data()));
    if (HasFatalFailure()) return;
  }
}

/// The parts of each split item that exists lie one worker apart, in slots of their own.
void expect_split_items(PlanCase const& c, ScheduleView const& view, std::vector<flashmla_part> const& parts) {
  std::set<int32_t> slots;
  for (flashmla_part const& part : parts) {
    if (part.num_splits == 1) continue;
    ASSERT_TRUE(slots.insert(partial_slot(part.worker, part.split)).second);
    SplitItem const wanted{part.request, part.row_tile, part.worker - part.split, part.num_splits};
    auto const is_wanted = [&](SplitItem const& item) { return std::memcmp(&item, &wanted, sizeof item) == 0; };
    ASSERT_TRUE(std::any_of(view.splits, view.splits + view.header->num_split_items, is_wanted));
  }
  ASSERT_LE(slots.size(), static_cast<size_t>(num_partial_slots(c.shape.max_workers)));
}

/// The schedule of other offsets, and of other lengths as well.
TEST(Split, EarlierOffsetsCostNoCorrectness) {
  std::mt19937 random(12);
  for (int i = 0; i < 4000; ++i) {
    PlanCase c = random_ragged_case(random);
    SCOPED_TRACE("case " + std::to_string(i));
    std::vector<char> schedule = made_schedule(c);
    if (i % 2) c.kv_len = random_lengths(random, c.rows.batch);
    if (i % 4 == 3) c.rows.q_tokens *= 2;  // the bound is no part of it
    c.q_offsets = random_offsets(random, c.rows.batch, c.rows.q_tokens);
    ScheduleView const view = schedule_view(schedule.data(), c.shape.max_workers);
    ASSERT_TRUE(schedule_matches(*view.header, c.shape, c.step()));
    ASSERT_TRUE(is_followable(c.shape, view));
    std::vector<flashmla_part> const parts = list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data());
    expect_cover_with_empty_parts(c, parts);
    expect_split_items(c, view, parts);
    if (HasFatalFailure()) return;
  }
}

/// Requests of one query length are the same work, said either way; only the first begin may differ in nothing.
TEST(Split, EqualOffsetsGiveTheScheduleOfUniformRows) {
  std::mt19937 random(13);
  for (int i = 0; i < 500; ++i) {
    PlanCase const uniform = random_case(random);
    PlanCase ragged = uniform;
    for (int32_t r = 0; r <= uniform.rows.batch; ++r) ragged.q_offsets.push_back(r * uniform.rows.q_tokens);
    std::vector<char> const a = made_schedule(uniform), b = made_schedule(ragged);
    ASSERT_EQ(std::memcmp(a.data() + sizeof(ScheduleHeader), b.data() + sizeof(ScheduleHeader), a.size() - sizeof(ScheduleHeader)), 0);
  }
}

/// Junk offsets are clamped one request at a time: nothing leaves the schedule.
TEST(Split, JunkOffsetsStayInsideTheSchedule) {
  std::mt19937 random(14);
  for (int i = 0; i < 500; ++i) {
    PlanCase c = random_ragged_case(random);
    for (int32_t& offset : c.q_offsets)
      if (random() % 2) offset = static_cast<int32_t>(random());
    std::vector<char> schedule = made_schedule(c);
    ScheduleView const view = schedule_view(schedule.data(), c.shape.max_workers);
    ASSERT_TRUE(is_followable(c.shape, view));
    c.q_offsets = random_offsets(random, c.rows.batch, c.rows.q_tokens);
    expect_cover_with_empty_parts(c, list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data()));
    if (HasFatalFailure()) return;
  }
}

TEST(Split, WithoutAnyQueryTokenOneWorkerWaitsForThem) {
  PlanCase c{{64, 64, 8, 5, 1}, {3, 4, 16}, {100, 200, 300}, {7, 7, 7, 7}};
  std::vector<char> schedule = made_schedule(c);
  ScheduleView const view = schedule_view(schedule.data(), c.shape.max_workers);
  EXPECT_EQ(view.header->num_workers, 1);
  EXPECT_TRUE(list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data()).empty());
  c.q_offsets = {0, 1, 1, 5};
  EXPECT_EQ(list_parts(c.shape, c.step(), c.kv_len.data(), schedule.data()).size(), 2U);
}

TEST(Split, AnEmptyBatchHasNoWork) {
  PlanShape const shape{64, 64, 8, 5, 1};
  std::vector<char> schedule(schedule_bytes(shape.max_workers), '\x5a');
  make_schedule(shape, {0, 1, 128}, nullptr, schedule.data());
  ScheduleView const view = schedule_view(schedule.data(), shape.max_workers);
  EXPECT_EQ(view.header->num_workers, 0);
  for (int32_t w = 0; w < shape.max_workers; ++w) EXPECT_FALSE(PartWalk(view, w).has_item());
  EXPECT_TRUE(list_parts(shape, {0, 1, 128}, nullptr, schedule.data()).empty());
}

TEST(Split, ASplitThatAPersonCanCheck) {
  // Tiles 16, 2, 64, 1 of 64 tokens; opening costs nothing, so 83 tiles on 4 workers are cut at 20, 41 and 62.
  PlanShape const shape{64, 64, 4, 0, 1};
  std::vector<int32_t> const kv_len{1000, 70, 4096, 1};
  std::vector<char> schedule(schedule_bytes(shape.max_workers));
  make_schedule(shape, {4, 1, 64}, kv_len.data(), schedule.data());
  std::vector<flashmla_part> const parts = list_parts(shape, {4, 1, 64}, kv_len.data(), schedule.data());
  std::vector<std::vector<int32_t>> const expected = {{0, 0, 0, 1000, 0, 1},   {0, 1, 0, 70, 0, 1},      {0, 2, 0, 128, 0, 4},
                                                      {1, 2, 128, 1472, 1, 4}, {2, 2, 1472, 2816, 2, 4}, {3, 2, 2816, 4096, 3, 4},
                                                      {3, 3, 0, 1, 0, 1}};
  ASSERT_EQ(parts.size(), expected.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    flashmla_part const& p = parts[i];
    EXPECT_EQ((std::vector<int32_t>{p.worker, p.request, p.first_token, p.last_token, p.split, p.num_splits}), expected[i]) << i;
  }
}

TEST(Split, JunkLengthsStayInsideTheSchedule) {
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    PlanCase c = random_case(random);
    for (int32_t& length : c.kv_len) length = static_cast<int32_t>(random());
    std::vector<char> const looped = made_schedule(c);
    ASSERT_EQ(looped, searched_schedule(c));
    ScheduleView const view = schedule_view(const_cast<char*>(looped.data()), c.shape.max_workers);
    for (int32_t w = 0; w <= c.shape.max_workers; ++w) {
      ASSERT_GE(view.begins[w].request, 0);
      ASSERT_LE(view.begins[w].request, c.rows.batch);
      ASSERT_GE(view.begins[w].tile, 0);
    }
  }
}

}  // namespace
}  // namespace flashmla::core
