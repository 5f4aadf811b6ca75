// The device's planner against the host's.
#pragma once

namespace flashmla::test {

/// Makes `count` random schedules on the current device and on the host. Throws std::runtime_error where one differs in a byte.
void check_device_planner(int count);

}  // namespace flashmla::test
