// The schedule of one step: what `update` writes and `run` reads, on host or device, as plain data.
//
// Layout of the buffer: ScheduleHeader, then WorkerBegin[num_workers + 1], then SplitItem[num_workers]. An *item* is one
// (request, row tile); worker w runs the parts from begins[w] up to begins[w + 1], walking the items in order (request
// major). Only balance depends on it: `run` takes every bound from its own arguments.
#pragma once

#include <cstddef>
#include <cstdint>
namespace flashmla::core {

inline constexpr uint32_t kScheduleMagic = 0x464d4c31;  // "FML1"

/// What a schedule begins with. Where things lie in it depends on max_workers and what a row tile is on kv_heads, so plans that
/// differ in either must not follow each other's: an odd factor keeps apart every pair of numbers below 2^16.
constexpr uint32_t schedule_magic(int32_t max_workers, int32_t kv_heads) {
  return kScheduleMagic ^ (static_cast<uint32_t>(kv_heads - 1) << 16 | static_cast<uint32_t>(max_workers)) * 0x9e3779b1U;
}

struct alignas(16) ScheduleHeader {
  uint32_t magic;  // schedule_magic
  int32_t batch;
  int32_t q_tokens;         // query tokens of every request; 0: ragged
  int32_t num_row_tiles;    // row tiles of every request; 0: ragged
  int32_t num_workers;      // begins[num_workers] ends the last; workers that have nothing have equal begins
  int32_t num_split_items;  // valid entries of SplitItem
  int16_t tile_tokens;
  int16_t workers_per_item;  // that every item has; 0: they differ; -n: every worker has n items. Above 1, no worker has parts of two
  int32_t tile_rows;
};

/// Where a worker starts. {batch, 0, 0, 0, 0} is the end.
struct alignas(16) WorkerBegin {
  int32_t request;
  int32_t row_tile;
  int32_t tile;        // token tile inside the item; > 0 means that the item began in an earlier worker
  int16_t split;       // index of this part among the item's
  int16_t num_splits;  // parts of that item where tile > 0, else 0
};

/// An item that several workers share; its parts are split s in worker first_worker + s.
struct SplitItem {
  int32_t request;
  int32_t row_tile;
  int32_t first_worker;
  int32_t num_splits;
};

constexpr size_t schedule_bytes(int32_t num_workers) {
  return sizeof(ScheduleHeader) + sizeof(WorkerBegin) * (static_cast<size_t>(num_workers) + 1) +
         sizeof(SplitItem) * static_cast<size_t>(num_workers);
}

/// Typed pointers into a schedule buffer.
struct ScheduleView {
  ScheduleHeader* header;
  WorkerBegin* begins;  // [num_workers + 1]
  SplitItem* splits;    // [num_workers]
};
constexpr size_t kScheduleBeginsOffset = sizeof(ScheduleHeader);
constexpr size_t schedule_splits_offset(int32_t num_workers) {
  return kScheduleBeginsOffset + sizeof(WorkerBegin) * (static_cast<size_t>(num_workers) + 1);
}
inline ScheduleView schedule_view(void* data, int32_t num_workers) {
  char* const base = static_cast<char*>(data);
  return {reinterpret_cast<ScheduleHeader*>(base), reinterpret_cast<WorkerBegin*>(base + kScheduleBeginsOffset),
          reinterpret_cast<SplitItem*>(base + schedule_splits_offset(num_workers))};
}

/// Partial results lie in slots, two a worker: 2w for a part that continues an earlier worker's item, 2w + 1 for the
/// first part of an item that goes on in the next worker. Whole items need no slot.
constexpr int32_t partial_slot(int32_t worker, int32_t split) { return 2 * worker + (split == 0 ? 1 : 0); }
constexpr int32_t num_partial_slots(int32_t num_workers) { return 2 * num_workers; }

}  // namespace flashmla::core
