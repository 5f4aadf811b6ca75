#include "core/split.hpp"

#include <algorithm>
#include <cstring>

#include "core/parts.hpp"

namespace flashmla::core {

namespace {

PlanTotals sum_costs(PlanShape const& shape, StepRows const& rows, int32_t row_tiles, int32_t const* kv_len) {
  PlanTotals totals{0, 0, rows.batch * row_tiles, 0};
  for (int32_t r = 0; r < rows.batch; ++r) {
    int64_t const cost = item_cost(shape, kv_len[r]);
    totals.cost += row_tiles * cost;
    totals.item_cost = std::max(totals.item_cost, cost);
    totals.tiles += static_cast<int64_t>(row_tiles) * num_token_tiles(shape, kv_len[r]);
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

/// Walks the line of items and places the cuts that fall into each.
void cut_items(PlanShape const& shape, PlanTotals const& totals, StepRows const& rows, int32_t const* kv_len, ScheduleView const& view) {
  int32_t const workers = view.header->num_workers;
  int64_t start = 0;
  int32_t cut = 0;  // the first that is not placed yet
  for (int32_t r = 0; r < rows.batch; ++r) {
    int64_t const cost = item_cost(shape, kv_len[r]);
    for (int32_t t = 0; t < view.header->num_row_tiles; ++t, start += cost) {
      int32_t const first_cut = cut;
      while (cut < workers && cut_position(shape, totals, workers, cut) < start + cost) ++cut;
      if (cut > first_cut) place_cuts(shape, totals, view, {r, t, start, first_cut, cut});
    }
  }
}

}  // namespace

void make_schedule(PlanShape const& shape, StepRows const& rows, int32_t const* kv_len, void* schedule) {
  std::memset(schedule, 0, schedule_bytes(shape.max_workers));
  ScheduleView const view = schedule_view(schedule, shape.max_workers);
  int32_t const row_tiles = num_row_tiles(shape, rows.q_tokens, rows.h_q);
  PlanTotals const totals = sum_costs(shape, rows, row_tiles, kv_len);
  int32_t const workers = num_workers(shape, totals);
  *view.header = {kScheduleMagic, rows.batch, rows.q_tokens, row_tiles, workers, 0, shape.tile_tokens, shape.tile_rows};
  if (keeps_items_whole(shape, totals)) {
    for (int32_t w = 0; w < workers; ++w) view.begins[w] = {w / row_tiles, w % row_tiles, 0, 0, 0};
  } else {
    cut_items(shape, totals, rows, kv_len, view);
  }
  std::fill(view.begins + workers, view.begins + shape.max_workers + 1, WorkerBegin{rows.batch, 0, 0, 0, 0});
}

std::vector<flashmla_part> list_parts(PlanShape const& shape, int32_t const* kv_len, void const* schedule) {
  ScheduleView const view = schedule_view(const_cast<void*>(schedule), shape.max_workers);  // only read below
  std::vector<flashmla_part> parts;
  for (int32_t w = 0; w < view.header->num_workers; ++w) {
    for (PartWalk walk(view, w); walk.has_item(); walk.advance()) {
      Part const part = walk.part(clamp_length(kv_len[walk.request()], INT32_MAX));
      parts.push_back({w, part.request, part.row_tile, part.first_token, part.last_token, part.split, part.num_splits});
    }
  }
  return parts;
}

}  // namespace flashmla::core
