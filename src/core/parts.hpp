// From a schedule to the parts of a worker: the walk that every backend does, on host or device.
//
// The schedule says where workers begin, in items and tiles of the lengths it was made from. The walk meets the lengths
// of the call: the last part of an item reaches to the item's actual end, and a part that lies beyond it is empty. So a
// schedule made for other lengths of the same batch covers every token exactly once all the same. With ragged queries the
// row tiles of a request are those of the call as well: workers begin at places in the order of (request, row tile, tile),
// and every item that exists lies between two of them; a worker that begins in one that does not goes on to the next that does.
//
//     for (PartWalk walk(view, w); walk.has_item(); walk.advance()) {
//       Part const part = walk.part(length_of(walk.request()));
//       ...
//     }
#pragma once

#include <cstdint>

#include "core/planner.hpp"
#include "core/query_tokens.hpp"
#include "core/schedule.hpp"

namespace flashmla::core {

/// A token range of one (request, row tile), computed by one worker. first_token == last_token: it has no token, yet its
/// empty rows, or its empty partial result, must be written.
struct Part {
  int32_t request;
  int32_t row_tile;
  int32_t first_token;
  int32_t last_token;  // exclusive
  int32_t split;       // index among the parts of this item
  int32_t num_splits;  // parts of this item; 1: no merge follows

  [[nodiscard]] constexpr bool is_whole() const { return num_splits == 1; }
};

/// A length from device or user memory, inside what the call can hold: [0, limit].
constexpr int32_t clamp_length(int32_t kv_len, int64_t limit) {
  if (kv_len < 0) return 0;
  return kv_len > limit ? static_cast<int32_t>(limit) : kv_len;
}

/// The largest length that a call can hold: the table's width, and max_kv_len unless that is 0.
constexpr int64_t length_limit(int64_t table_pages, int32_t page_tokens, int64_t max_kv_len) {
  int64_t const kMax = INT32_MAX;
  int64_t const table = table_pages > kMax / page_tokens ? kMax : table_pages * page_tokens;
  return max_kv_len > 0 && max_kv_len < table ? max_kv_len : table;
}

/// Row tiles where every request has as many.
struct UniformRowTiles {
  static constexpr bool kIsUniform = true;
  int32_t num_row_tiles;

  [[nodiscard]] constexpr int32_t operator()(int32_t /*request*/) const { return num_row_tiles; }
};

/// Row tiles of a call with q_offsets, or of one without.
struct RaggedRowTiles {
  static constexpr bool kIsUniform = false;
  PlanShape shape;
  QueryBounds bounds;
  int32_t h_q;

  [[nodiscard]] constexpr int32_t operator()(int32_t request) const {
    return num_row_tiles(shape, query_tokens(bounds, request).count, h_q);
  }
};

/// Walks the items of one worker in order.
template <class RowTiles>
class PartWalkOver {
 public:
  constexpr PartWalkOver(WorkerBegin const& begin, WorkerBegin const& end, RowTiles const& row_tiles, int32_t tile_tokens)
      : end_(end),
        row_tiles_(row_tiles),
        tile_tokens_(tile_tokens),
        request_(begin.request),
        row_tile_(begin.row_tile),
        tile_(begin.tile),
        split_(begin.split),
        num_splits_(begin.tile > 0 ? begin.num_splits : 1) {
    if constexpr (!RowTiles::kIsUniform) skip_missing_items();
  }
  constexpr PartWalkOver(WorkerBegin const& begin, WorkerBegin const& end, int32_t num_row_tiles, int32_t tile_tokens)
    requires RowTiles::kIsUniform
      : PartWalkOver(begin, end, RowTiles{num_row_tiles}, tile_tokens) {}
  constexpr PartWalkOver(ScheduleView const& schedule, int32_t worker)
    requires RowTiles::kIsUniform
      : PartWalkOver(schedule.begins[worker], schedule.begins[worker + 1], schedule.header->num_row_tiles, schedule.header->tile_tokens) {}
  constexpr PartWalkOver(ScheduleView const& schedule, int32_t worker, RowTiles const& row_tiles)
      : PartWalkOver(schedule.begins[worker], schedule.begins[worker + 1], row_tiles, schedule.header->tile_tokens) {}

  [[nodiscard]] constexpr bool has_item() const {
    if (request_ != end_.request) return request_ < end_.request;
    if (row_tile_ != end_.row_tile) return row_tile_ < end_.row_tile;
    return tile_ < end_.tile;
  }
  [[nodiscard]] constexpr int32_t request() const { return request_; }
  [[nodiscard]] constexpr int32_t row_tile() const { return row_tile_; }

  /// The part of this item, whose actual length is `kv_len` (clamped, not negative).
  [[nodiscard]] constexpr Part part(int32_t kv_len) const {
    bool const goes_on = request_ == end_.request && row_tile_ == end_.row_tile;  // in the next worker
    int64_t const first = static_cast<int64_t>(tile_) * tile_tokens_;
    int64_t const last = goes_on ? static_cast<int64_t>(end_.tile) * tile_tokens_ : kv_len;
    return {request_, row_tile_, clamp(first, kv_len), clamp(last, kv_len), split_, goes_on ? end_.num_splits : num_splits_};
  }

  constexpr void advance() {
    tile_ = 0;
    split_ = 0;
    num_splits_ = 1;
    ++row_tile_;
    if constexpr (RowTiles::kIsUniform) {
      if (row_tile_ < row_tiles_.num_row_tiles) return;
      row_tile_ = 0;
      ++request_;
    } else {
      skip_missing_items();
    }
  }

 private:
  static constexpr int32_t clamp(int64_t token, int32_t kv_len) { return token < kv_len ? static_cast<int32_t>(token) : kv_len; }

  /// On to an item that exists, or past the worker's end, which is never beyond the batch.
  constexpr void skip_missing_items() {
    while (has_item() && row_tile_ >= row_tiles_(request_)) {
      ++request_;
      row_tile_ = tile_ = split_ = 0;
      num_splits_ = 1;
    }
  }

  WorkerBegin end_;
  RowTiles row_tiles_;
  int32_t tile_tokens_;
  int32_t request_, row_tile_, tile_, split_, num_splits_;
};

using PartWalk = PartWalkOver<UniformRowTiles>;
using RaggedPartWalk = PartWalkOver<RaggedRowTiles>;

/// The rows of one step, as a schedule is made for.
struct StepRows {
  int32_t batch;
  int32_t q_tokens;  // of every request, or with q_offsets the most that one may have
  int32_t h_q;
  int32_t const* q_offsets = nullptr;  // [batch + 1]: ragged

  [[nodiscard]] constexpr bool is_ragged() const { return q_offsets != nullptr; }
};

/// The header of a schedule for these rows, but for the numbers of workers and of split items, which follow from lengths. Of ragged rows
/// the batch is all that has to agree.
constexpr ScheduleHeader expected_header(PlanShape const& shape, StepRows const& rows) {
  int32_t const q_tokens = rows.is_ragged() ? 0 : rows.q_tokens;
  int32_t const row_tiles = num_row_tiles(shape, q_tokens, rows.h_q);
  uint32_t const magic = schedule_magic(shape.max_workers, shape.kv_heads);
  return {magic, rows.batch, q_tokens, row_tiles, 0, 0, static_cast<int16_t>(shape.tile_tokens), 0, shape.tile_rows};
}

/// Whether a schedule was made by such a plan for this batch and these rows. If not, nothing in it may be followed.
constexpr bool schedule_matches(ScheduleHeader const& header, PlanShape const& shape, StepRows const& rows) {
  ScheduleHeader const expected = expected_header(shape, rows);
  return header.magic == expected.magic && header.batch == expected.batch && header.q_tokens == expected.q_tokens &&
         header.num_row_tiles == expected.num_row_tiles && header.tile_tokens == expected.tile_tokens &&
         header.tile_rows == expected.tile_rows && header.num_workers <= shape.max_workers;
}

}  // namespace flashmla::core
