#include "core/split.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "core/parts.hpp"

namespace flashmla::core {

namespace {

/// Row tiles of each request of a step; of q nothing is known but the offsets.
RaggedRowTiles row_tiles_of(PlanShape const& shape, StepRows const& rows) {
  return {shape, {rows.q_offsets, rows.q_tokens, INT32_MAX}, rows.h_q};
}

PlanTotals sum_costs(PlanShape const& shape, StepRows const& rows, RaggedRowTiles const& row_tiles, int32_t const* kv_len) {
  PlanTotals totals{0, 0, 0, 0};
  for (int32_t r = 0; r < rows.batch; ++r) {
    int32_t const items = row_tiles(r);
    if (items == 0) continue;
    int64_t const cost = item_cost(shape, kv_len[r]);
    totals.cost += items * cost;
    totals.item_cost = std::max(totals.item_cost, cost);
    totals.tiles += static_cast<int64_t>(items) * num_token_tiles(shape, kv_len[r]);
    totals.items += items;
  }
  return totals;
}

/// Places the cuts that fall into one item, whose stretch of the line begins at `start`.
struct ItemCuts {
  int32_t request, row_tile;
  int64_t start;
  int32_t first_cut, last_cut;  // exclusive
};

void place_cuts(PlanShape const& shape, PlanTotals const& totals, ScheduleView const& view, ItemCuts const& item) {
  int32_t const workers = view.header->num_workers;
  int32_t first_worker = item.first_cut - 1;  // of split 0: the last that starts at the item's first tile
  for (int32_t w = item.first_cut; w < item.last_cut; ++w) {
    int32_t const tile = locate(shape, cut_position(shape, totals, workers, w) - item.start);
    if (tile == 0) first_worker = w;
    view.begins[w] = {item.request, item.row_tile, tile, static_cast<int16_t>(w - first_worker), 0};
  }
  int32_t const num_splits = item.last_cut - first_worker;
  for (int32_t w = first_worker + 1; w < item.last_cut; ++w) view.begins[w].num_splits = static_cast<int16_t>(num_splits);
  if (num_splits > 1) view.splits[view.header->num_split_items++] = {item.request, item.row_tile, first_worker, num_splits};
}

/// What the walk over the line of items reads.
struct Line {
  PlanShape const& shape;
  PlanTotals const& totals;
  RaggedRowTiles const& row_tiles;
  int32_t batch;
};

/// Walks the line of items and places the cuts that fall into each.
void cut_items(Line const& line, int32_t const* kv_len, ScheduleView const& view) {
  int32_t const workers = view.header->num_workers;
  int64_t start = 0;
  int32_t cut = 0;  // the first that is not placed yet
  for (int32_t r = 0; r < line.batch; ++r) {
    int64_t const cost = item_cost(line.shape, kv_len[r]);
    int32_t const row_tiles = line.row_tiles(r);
    for (int32_t t = 0; t < row_tiles; ++t, start += cost) {
      int32_t const first_cut = cut;
      while (cut < workers && cut_position(line.shape, line.totals, workers, cut) < start + cost) ++cut;
      if (cut > first_cut) place_cuts(line.shape, line.totals, view, {r, t, start, first_cut, cut});
    }
  }
}

/// Every item goes to `per_item` workers.
void share_out_items(Line const& line, int32_t const* kv_len, int32_t per_item, ScheduleView const& view) {
  int32_t w = 0, idle = 0;  // workers behind an item's last part, which begin where the next item does
  for (int32_t r = 0; r < line.batch; ++r) {
    int32_t const row_tiles = line.row_tiles(r), tiles = num_token_tiles(line.shape, kv_len[r]), parts = num_even_parts(tiles, per_item);
    for (int32_t t = 0; t < row_tiles; ++t) {
      for (; idle > 0; --idle) view.begins[w++] = {r, t, 0, 0, 0};
      view.begins[w] = {r, t, 0, 0, 0};
      for (int32_t s = 1; s < parts; ++s)
        view.begins[w + s] = {r, t, even_part_begin(tiles, parts, s), static_cast<int16_t>(s), static_cast<int16_t>(parts)};
      if (parts > 1) view.splits[view.header->num_split_items++] = {r, t, w, parts};
      w += parts, idle = per_item - parts;
    }
  }
  for (; idle > 0; --idle) view.begins[w++] = {line.batch, 0, 0, 0, 0};
}

/// Every worker gets `each` whole items, the last what is left.
void deal_items(Line const& line, int32_t each, ScheduleView const& view) {
  int32_t item = 0;
  for (int32_t r = 0; r < line.batch; ++r) {
    int32_t const row_tiles = line.row_tiles(r);
    for (int32_t t = 0; t < row_tiles; ++t, ++item)
      if (item % each == 0) view.begins[item / each] = {r, t, 0, 0, 0};
  }
}

bool is_at(WorkerBegin const& begin, int32_t request, int32_t row_tile, int32_t tile, int32_t split) {
  return begin.request == request && begin.row_tile == row_tile && begin.tile == tile && begin.split == split;
}

/// The workers behind the first of an item continue it, one split after the other.
bool is_split_item(ScheduleView const& view, SplitItem const& item) {
  if (item.first_worker < 0 || item.num_splits < 2 || item.num_splits > view.header->num_workers - item.first_worker) return false;
  for (int32_t s = 1; s < item.num_splits; ++s) {
    WorkerBegin const& begin = view.begins[item.first_worker + s];
    if (begin.request != item.request || begin.row_tile != item.row_tile) return false;
    if (begin.split != s || begin.num_splits != item.num_splits) return false;
  }
  return true;
}

}  // namespace

bool is_followable(PlanShape const& shape, ScheduleView const& view) {
  ScheduleHeader const& header = *view.header;
  int32_t const workers = header.num_workers;
  if (workers < 0 || workers > shape.max_workers || header.num_split_items < 0 || header.num_split_items > workers) return false;
  if (!is_at(view.begins[workers], header.batch, 0, 0, 0)) return false;
  if (!is_at(view.begins[0], workers == 0 ? header.batch : 0, 0, 0, 0)) return false;
  int32_t continued = 0;  // workers that begin inside an item
  for (int32_t w = 0; w < workers; ++w) {
    WorkerBegin const& begin = view.begins[w];
    WorkerBegin const& next = view.begins[w + 1];
    bool const has_place = begin.row_tile >= 0 && (header.num_row_tiles == 0 || begin.row_tile < header.num_row_tiles);
    if (!has_place || (begin.split > 0) != (begin.tile > 0)) return false;
    auto const from = std::tie(begin.request, begin.row_tile, begin.tile), to = std::tie(next.request, next.row_tile, next.tile);
    if (to < from || (to == from && next.split > 0)) return false;  // a split without tiles would write no partial result
    continued += begin.split > 0 ? 1 : 0;
  }
  int32_t last_worker = 0;  // of the split items so far, which lie in order
  for (int32_t i = 0; i < header.num_split_items; ++i) {
    SplitItem const& item = view.splits[i];
    if (item.first_worker < last_worker || !is_split_item(view, item)) return false;
    if (i > 0 && view.splits[i - 1].request == item.request && view.splits[i - 1].row_tile == item.row_tile) return false;
    last_worker = item.first_worker + item.num_splits - 1;
    continued -= item.num_splits - 1;
  }
  return continued == 0;
}

void make_schedule(PlanShape const& shape, StepRows const& rows, int32_t const* kv_len, void* schedule) {
  std::memset(schedule, 0, schedule_bytes(shape.max_workers));
  ScheduleView const view = schedule_view(schedule, shape.max_workers);
  RaggedRowTiles const row_tiles = row_tiles_of(shape, rows);
  PlanTotals const totals = sum_costs(shape, rows, row_tiles, kv_len);
  int32_t const per_item = workers_per_item(shape, totals), workers = num_workers(shape, totals, per_item);
  *view.header = expected_header(shape, rows);
  view.header->num_workers = workers;
  view.header->workers_per_item = static_cast<int16_t>(per_item);
  Line const line{shape, totals, row_tiles, rows.batch};
  if (per_item > 0) share_out_items(line, kv_len, per_item, view);
  else if (per_item < 0) deal_items(line, -per_item, view);
  else cut_items(line, kv_len, view);
  if (rows.is_ragged() && rows.batch > 0) {
    view.header->num_workers = std::max(workers, 1);
    view.begins[0] = {0, 0, 0, 0, 0};
  }
  std::fill(view.begins + view.header->num_workers, view.begins + shape.max_workers + 1, WorkerBegin{rows.batch, 0, 0, 0, 0});
}

std::vector<flashmla_part> list_parts(PlanShape const& shape, StepRows const& rows, int32_t const* kv_len, void const* schedule) {
  ScheduleView const view = schedule_view(const_cast<void*>(schedule), shape.max_workers);  // only read below
  RaggedRowTiles const row_tiles = row_tiles_of(shape, rows);
  std::vector<flashmla_part> parts;
  for (int32_t w = 0; w < view.header->num_workers; ++w) {
    for (RaggedPartWalk walk(view, w, row_tiles); walk.has_item(); walk.advance()) {
      Part const part = walk.part(clamp_length(kv_len[walk.request()], INT32_MAX));
      parts.push_back({w, part.request, part.row_tile, part.first_token, part.last_token, part.split, part.num_splits});
    }
  }
  return parts;
}

}  // namespace flashmla::core
