// The host's way to a schedule, and to the list of parts that people and tests look at.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <vector>

#include "core/parts.hpp"
#include "core/planner.hpp"
#include "core/schedule.hpp"

namespace flashmla::core {

/// Writes all schedule_bytes(shape.max_workers) bytes of `schedule`, the same bits as the device's planner: unused begins
/// are {batch, 0, 0, 0}, unused split items are zero. kv_len: [batch].
void make_schedule(PlanShape const& shape, StepRows const& rows, int32_t const* kv_len, void* schedule);

/// Whether a schedule whose header matches (parts.hpp) can be followed: its workers walk all items in order, and each item that
/// several share is listed with exactly its workers. Memory that was overwritten fails here.
bool is_followable(PlanShape const& shape, ScheduleView const& view);

/// The parts of a schedule for rows and lengths kv_len [batch], in the order of workers. The schedule may have been made from
/// other lengths and offsets.
std::vector<flashmla_part> list_parts(PlanShape const& shape, StepRows const& rows, int32_t const* kv_len, void const* schedule);

}  // namespace flashmla::core
