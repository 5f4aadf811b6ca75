#include <gtest/gtest.h>

#include <array>
#include <climits>

#include "reference/tiny_call.hpp"

namespace flashmla::reference::test {
namespace {

using Fault = std::array<int32_t, 4>;  // code, request, position, value

std::vector<Fault> faults_of(TinyCall const& tiny) {
  std::vector<Fault> all;
  for (flashmla_fault const& f : faults(tiny.problem, tiny.call())) all.push_back({f.code, f.request, f.position, f.value});
  return all;
}

TEST(Faults, AGoodCallHasNone) {
  TinyCall tiny({9, 0, 4}, 1, 2);
  tiny.page_table[5] = tiny.page_table[7] = 2147480000;  // past the lengths
  EXPECT_TRUE(faults_of(tiny).empty());
}

TEST(Faults, Lengths) {
  TinyCall tiny({8, 8, 8});
  tiny.kv_len = {9, -1, INT_MAX};
  EXPECT_EQ(
      faults_of(tiny),
      (std::vector<Fault>{{FLASHMLA_FAULT_KV_LEN, 0, 0, 9}, {FLASHMLA_FAULT_KV_LEN, 1, 0, -1}, {FLASHMLA_FAULT_KV_LEN, 2, 0, INT_MAX}}));
}

TEST(Faults, LengthsBeyondTheDeclaredMaximum) {
  TinyCall tiny({5, 8});
  tiny.problem.max_kv_len = 7;
  EXPECT_EQ(faults_of(tiny), (std::vector<Fault>{{FLASHMLA_FAULT_KV_LEN, 1, 0, 8}}));
}

TEST(Faults, PageIdsThatARowReadsThrough) {
  TinyCall tiny({8, 8});
  tiny.page_table = {0, -1, 4, 3};
  EXPECT_EQ(faults_of(tiny), (std::vector<Fault>{{FLASHMLA_FAULT_PAGE_ID, 0, 1, -1}, {FLASHMLA_FAULT_PAGE_ID, 1, 0, 4}}));
  tiny.visible_len = {4, 0};
  EXPECT_TRUE(faults_of(tiny).empty());
}

TEST(Faults, VisibleLengths) {
  TinyCall tiny({8, 3}, 1, 2);
  tiny.visible_len = {8, 9, -1, 3};
  EXPECT_EQ(faults_of(tiny), (std::vector<Fault>{{FLASHMLA_FAULT_VISIBLE_LEN, 0, 1, 9}, {FLASHMLA_FAULT_VISIBLE_LEN, 1, 0, -1}}));
}

}  // namespace
}  // namespace flashmla::reference::test
