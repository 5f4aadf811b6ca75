// From a schedule to the parts of a worker: the walk that every backend does, on host or device.
//
// The schedule says where workers begin, in items and tiles of the lengths it was made from. The walk meets the lengths
// of the call: the last part of an item reaches to the item's actual end, and a part that lies beyond it is empty. So a
// schedule made for other lengths of the same batch covers every token exactly once all the same.
//
//     for (PartWalk walk(view, w); walk.has_item(); walk.advance()) {
//       Part const part = walk.part(length_of(walk.request()));
//       ...
//     }
#pragma once

#include <cstdint>

#include "core/planner.hpp"
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

/// Walks the items of one worker in order.
class PartWalk {
 public:
  constexpr PartWalk(WorkerBegin const& begin, WorkerBegin const& end, int32_t num_row_tiles, int32_t tile_tokens)
      : end_(end),
        num_row_tiles_(num_row_tiles),
        tile_tokens_(tile_tokens),
        request_(begin.request),
        row_tile_(begin.row_tile),
        tile_(begin.tile),
        split_(begin.split),
        num_splits_(begin.tile > 0 ? begin.num_splits : 1) {}
  constexpr PartWalk(ScheduleView const& schedule, int32_t worker)
      : PartWalk(schedule.begins[worker], schedule.begins[worker + 1], schedule.header->num_row_tiles, schedule.header->tile_tokens) {}

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
    if (++row_tile_ < num_row_tiles_) return;
    row_tile_ = 0;
    ++request_;
  }

 private:
  static constexpr int32_t clamp(int64_t token, int32_t kv_len) { return token < kv_len ? static_cast<int32_t>(token) : kv_len; }

  WorkerBegin end_;
  int32_t num_row_tiles_, tile_tokens_;
  int32_t request_, row_tile_, tile_, split_, num_splits_;
};

/// Whether a schedule was made for this batch and these rows. If not, nothing in it may be followed.
constexpr bool schedule_matches(ScheduleHeader const& header, PlanShape const& shape, int32_t batch, int32_t q_tokens, int32_t h_q) {
  return header.magic == kScheduleMagic && header.batch == batch && header.q_tokens == q_tokens &&
         header.num_row_tiles == num_row_tiles(shape, q_tokens, h_q) && header.tile_tokens == shape.tile_tokens &&
         header.tile_rows == shape.tile_rows && header.num_workers <= shape.max_workers;
}

}  // namespace flashmla::core
