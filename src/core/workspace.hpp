// The workspace of a run: what `reset` clears once and every run leaves ready for the next.
//
// Layout: WorkspaceHeader (1,024 bytes: the fault record and counters that every run returns to zero), then the
// backend's partial results: lse float32 [slots, tile_rows], then out float32 [slots, tile_rows, v_dim]. Those of the Hopper backend are
// its own (cuda/kernels/dense_decode.hpp), some of which every run leaves with all bits 1.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>

#include "core/planner.hpp"
#include "core/schedule.hpp"

namespace flashmla::core {

struct WorkspaceHeader {
  flashmla_fault fault;    // code 0: none; written once, by whoever finds a fault first
  uint32_t counters[248];  // zero between runs
};
static_assert(sizeof(WorkspaceHeader) == 1024);

constexpr size_t workspace_lse_offset() { return sizeof(WorkspaceHeader); }
constexpr size_t workspace_out_offset(PlanShape const& shape) {
  size_t const lse_bytes = static_cast<size_t>(num_partial_slots(shape.max_workers)) * static_cast<size_t>(shape.tile_rows) * sizeof(float);
  return workspace_lse_offset() + (lse_bytes + 255) / 256 * 256;
}
constexpr size_t workspace_bytes(PlanShape const& shape, int32_t v_dim) {
  return workspace_out_offset(shape) + static_cast<size_t>(num_partial_slots(shape.max_workers)) * static_cast<size_t>(shape.tile_rows) *
                                           static_cast<size_t>(v_dim) * sizeof(float);
}

}  // namespace flashmla::core
