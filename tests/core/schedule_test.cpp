#include "core/schedule.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/workspace.hpp"

namespace flashmla::core {
namespace {

static_assert(sizeof(ScheduleHeader) == 32 && sizeof(WorkerBegin) == 16 && sizeof(SplitItem) == 16);
static_assert(schedule_bytes(1) == 32 + 2 * 16 + 16);

TEST(Schedule, ViewsFillTheBuffer) {
  constexpr int32_t kWorkers = 5;
  alignas(16) char buffer[schedule_bytes(kWorkers)];
  ScheduleView const view = schedule_view(buffer, kWorkers);
  EXPECT_EQ(static_cast<void*>(view.header), static_cast<void*>(buffer));
  EXPECT_EQ(static_cast<void*>(view.begins), static_cast<void*>(view.header + 1));
  EXPECT_EQ(static_cast<void*>(view.splits), static_cast<void*>(view.begins + kWorkers + 1));
  EXPECT_EQ(static_cast<void*>(view.splits + kWorkers), static_cast<void*>(buffer + sizeof buffer));
}

TEST(Schedule, EveryPartialResultHasItsOwnSlot) {
  std::set<int32_t> slots;
  for (int32_t worker = 0; worker < 132; ++worker) {
    slots.insert(partial_slot(worker, 0));
    slots.insert(partial_slot(worker, 3));
  }
  EXPECT_EQ(slots.size(), static_cast<size_t>(num_partial_slots(132)));
  EXPECT_EQ(*slots.begin(), 0);
  EXPECT_EQ(*slots.rbegin(), num_partial_slots(132) - 1);
}

TEST(Workspace, RegionsDoNotOverlap) {
  for (int32_t workers : {1, 7, 132}) {
    PlanShape const shape{64, 64, workers, 5, 1};
    size_t const slots = static_cast<size_t>(num_partial_slots(workers));
    EXPECT_GE(workspace_out_offset(shape), workspace_lse_offset() + slots * 64 * sizeof(float));
    EXPECT_EQ(workspace_out_offset(shape) % 256, 0u);
    EXPECT_EQ(workspace_bytes(shape, 512), workspace_out_offset(shape) + slots * 64 * 512 * sizeof(float));
  }
}

}  // namespace
}  // namespace flashmla::core
