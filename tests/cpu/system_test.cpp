#include "cpu/system.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace flashmla::cpu {
namespace {

TEST(System, CoresFollowTheAffinityMask) {
  EXPECT_GE(usable_cores(), 1);
  int32_t narrowed = 0;
  std::thread([&narrowed] {  // a mask is per thread
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    narrowed = usable_cores();
  })
      .join();
  EXPECT_EQ(narrowed, 1);
}

TEST(System, TileRegistersAreGrantedOrRefusedForGood) { EXPECT_EQ(request_tile_registers(), request_tile_registers()); }

TEST(System, KnowsTheMachine) {
  EXPECT_GT(memory_bytes(), int64_t{1} << 20);
  EXPECT_FALSE(cpu_name().empty());
}

}  // namespace
}  // namespace flashmla::cpu
