// Work splitting: pure constexpr arithmetic over the prefix sum of unit costs, one definition for host and device.
//
// A unit is (request, row tile, token tile). An item, (request, row tile), costs `part_cost` for opening it plus
// `tile_cost` for each of its token tiles; an item without tokens counts as one tile, so that some worker writes its
// empty rows. Items lie in a line in order. With S = the sum of their costs and workers = max_workers, or the number of
// tiles where those are fewer, a fair share is
//     budget = (S + (workers - 1) * part_cost) / workers:
// every cut except at the ends is assumed to fall inside an item, which then has to be opened twice.
//
// Whole items. When there are no more items than max_workers and none costs a whole tile more than the fair share, each
// item is one worker's: splitting could not make the longest worker a tile shorter, and nothing has to be merged. Where items
// are nearly as many as workers, the fair share is that of as many workers as items: one idle worker in 32 costs less than
// cutting every item (128 requests of 8k on 132 workers: 413 us against 446, DRAM being the limit of both).
//
// Even items. Else, when every item can have the same number n of workers and none of these then costs a whole tile more than
// the fair share, worker n * i + s takes tiles T s / m .. T (s + 1) / m of item i, m = min(n, T) of its T tiles, and those
// with s >= m have nothing. Cuts of the line drift over items, since only the first part of each pays for opening it: 16
// requests of 64 tiles on 128 workers had parts of 6 to 9 tiles instead of 8. n is the least that makes the longest part no longer.
//
// Runs of whole items. Where there are more items than max_workers, worker w takes items n w .. n (w + 1), n being the least that serves all,
// if n of the largest cost less than the fair share and `merge_cost`: what a worker saves that neither stores a part nor merges one.
//
// Cuts. Otherwise worker w takes the stretch of the line between two cuts, worker 0 the first `budget` of it and every
// other worker `budget - part_cost`:
//     cut(w) = floor(w * (S + (workers - 1) * part_cost) / workers) - (w - 1) * part_cost,   0 < w < workers.
// A cut inside a tile moves down to that tile's start; one inside the opening cost moves down to the item's start.
//
// What holds, because workers are at most as many as tiles and so cuts lie at least (S - part_cost) / workers >=
// tile_cost apart:
//  - Two cuts never fall on the same tile but an item's first, whose stretch is part_cost + tile_cost long. Workers that
//    start at the same first tile have nothing, except the last of them. So no part is empty, every token has one part.
//  - A worker holds at most two partial results: its first part and its last.
//  - A worker's cost, the sum over its parts of part_cost + tile_cost * tiles, is below budget + tile_cost: nobody has
//    a whole tile more than the fair share, which itself is at most one part_cost above the mean of all workers. With
//    cuts it is also above budget - 2 * part_cost - tile_cost.
//
// Ragged queries. Requests have row tiles of their own, none at all where they have no query token: such a request is no item
// and has no place on the line. A batch without any item still gets one worker, and worker 0 always begins at request 0, so
// that the schedule serves whatever offsets a later call brings (parts.hpp).
//
// The host loops over requests; the device gives each request to a thread after a scan. Both call `workers_per_item`,
// `cut_position` and `locate`, so their schedules are equal bit for bit.
#pragma once

#include <cstdint>

namespace flashmla::core {

/// What the splitting depends on besides the lengths; fixed when a plan is made.
struct PlanShape {
  int32_t tile_rows;    // rows (query token, head) of a row tile
  int32_t tile_tokens;  // tokens of a token tile
  int32_t max_workers;
  int32_t part_cost;       // cost of opening an item, in the unit of tile_cost
  int32_t tile_cost;       // > 0
  int32_t kv_heads = 1;    // KV heads whose rows are items of their own; 1: an item holds the rows of all heads
  int32_t merge_cost = 0;  // cost of a worker's share in items that others share as well; 0: more items than workers are always cut
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Row tiles of a request with `q_tokens` query tokens of `h_q` heads, KV head major.
constexpr int32_t num_row_tiles(PlanShape const& shape, int32_t q_tokens, int32_t h_q) {
  return shape.kv_heads * static_cast<int32_t>(ceil_div(static_cast<int64_t>(q_tokens) * (h_q / shape.kv_heads), shape.tile_rows));
}

/// Token tiles of an item, at least 1; a negative length counts as 0.
constexpr int32_t num_token_tiles(PlanShape const& shape, int32_t kv_len) {
  return kv_len <= 0 ? 1 : static_cast<int32_t>(ceil_div(kv_len, shape.tile_tokens));
}

constexpr int64_t item_cost(PlanShape const& shape, int32_t kv_len) {
  return shape.part_cost + static_cast<int64_t>(shape.tile_cost) * num_token_tiles(shape, kv_len);
}

/// Sums over all items, from which everything else follows.
struct PlanTotals {
  int64_t cost;       // sum of item costs
  int64_t tiles;      // sum of token tiles, at least 1 an item
  int32_t items;      // row tiles of all requests
  int64_t item_cost;  // the largest of an item
};

/// Workers that can have work: no more than tiles, and no more than it takes to give none a tile more than with all of
/// them. 16 requests of 64 tiles on 132 workers come to 8 tiles for the longest; with 128 workers they do as well, and the
/// cuts fall on the ends of requests.
constexpr int32_t num_useful_workers(PlanShape const& shape, PlanTotals const& totals) {
  if (totals.tiles == 0) return 0;  // a batch of none
  int64_t const longest = ceil_div(totals.tiles, shape.max_workers);
  return static_cast<int32_t>(ceil_div(totals.tiles, longest));
}

/// Workers that the fair share is counted for where `used` of them get whole or even items.
constexpr int32_t num_sharing_workers(PlanShape const& shape, PlanTotals const& totals, int32_t used) {
  bool const are_nearly_all = used >= shape.max_workers - shape.max_workers / 32;
  return are_nearly_all ? used : num_useful_workers(shape, totals);
}

/// Whether items can have `each` workers, so that their longest part has `tiles`: its cost - tile_cost < budget, without the division.
constexpr bool is_fair(PlanShape const& shape, PlanTotals const& totals, int32_t each, int64_t tiles) {
  int32_t const workers = num_sharing_workers(shape, totals, each * totals.items);
  int64_t const cost = shape.part_cost + (tiles - 1) * shape.tile_cost;
  return cost * workers < totals.cost + static_cast<int64_t>(workers - 1) * shape.part_cost;
}

/// Whole items that every worker gets, the last perhaps fewer, where there are more items than workers; 0: the line is cut.
constexpr int32_t items_per_worker(PlanShape const& shape, PlanTotals const& totals) {
  auto const each = static_cast<int32_t>(ceil_div(totals.items, shape.max_workers));
  if (shape.merge_cost == 0 || each > INT16_MAX) return 0;  // the schedule's header has 16 bits for it
  int64_t const workers = num_useful_workers(shape, totals), most = each * totals.item_cost - shape.merge_cost;
  return most * workers < totals.cost + (workers - 1) * shape.part_cost ? each : 0;
}

/// Workers that every item gets. 1: items are whole; -n: every worker has n whole items; 0: the line is cut.
constexpr int32_t workers_per_item(PlanShape const& shape, PlanTotals const& totals) {
  if (totals.items == 0) return 0;
  if (totals.items > shape.max_workers) return -items_per_worker(shape, totals);
  int64_t const longest = (totals.item_cost - shape.part_cost) / shape.tile_cost;
  if (is_fair(shape, totals, 1, longest)) return 1;
  int64_t const part = ceil_div(longest, shape.max_workers / totals.items);
  auto const each = static_cast<int32_t>(ceil_div(longest, part));
  return each > 1 && is_fair(shape, totals, each, part) ? each : 0;
}

constexpr int32_t num_workers(PlanShape const& shape, PlanTotals const& totals, int32_t per_item) {
  if (per_item < 0) return static_cast<int32_t>(ceil_div(totals.items, -per_item));
  return per_item > 0 ? per_item * totals.items : num_useful_workers(shape, totals);
}

/// Of an item of `tiles` whose workers are `per_item`: those that have some of it.
constexpr int32_t num_even_parts(int32_t tiles, int32_t per_item) { return tiles < per_item ? tiles : per_item; }
/// The first tile of its part `split` <= `parts`.
constexpr int32_t even_part_begin(int32_t tiles, int32_t parts, int32_t split) {
  return static_cast<int32_t>(static_cast<int64_t>(tiles) * split / parts);
}

/// Where worker w starts on the line of costs when items are cut; 0 <= w <= workers. Rises by at least tile_cost from one to the next.
constexpr int64_t cut_position(PlanShape const& shape, PlanTotals const& totals, int32_t workers, int32_t w) {
  if (w == 0) return 0;
  if (w == workers) return totals.cost;
  int64_t const whole = totals.cost + static_cast<int64_t>(workers - 1) * shape.part_cost;
  // floor(whole * w / workers) without the product, which could pass 2^63.
  int64_t const share = whole / workers * w + whole % workers * w / workers;
  return share - static_cast<int64_t>(w - 1) * shape.part_cost;
}

/// The first worker whose cut is at or after `position`; workers + 1 if there is none.
constexpr int32_t first_cut_at_or_after(PlanShape const& shape, PlanTotals const& totals, int32_t workers, int64_t position) {
  int32_t low = 0, high = workers + 1;
  while (low < high) {
    int32_t const middle = (low + high) / 2;
    if (cut_position(shape, totals, workers, middle) >= position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/// The token tile at `offset` inside an item's stretch of the line.
constexpr int32_t locate(PlanShape const& shape, int64_t offset) {
  return offset <= shape.part_cost ? 0 : static_cast<int32_t>((offset - shape.part_cost) / shape.tile_cost);
}

}  // namespace flashmla::core
