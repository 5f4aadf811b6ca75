// The check of batch invariance can tell: work that is split for balance depends on batch mates, and it says so.
#include "conformance/invariance_check.hpp"

#include <gtest/gtest.h>

namespace flashmla::conformance {
namespace {

TEST(InvarianceCheck, SeesBitsThatDependOnTheBatch) {
  std::unique_ptr<DeviceMemory> const memory = make_host_memory();
  std::unique_ptr<Oracle> const oracle = make_reference_oracle();
  flashmla_target target{};
  target.struct_size = sizeof target;
  target.num_threads = 2;
  Bench const bench{target, *memory, *oracle};
  DecodeCase c;
  c.name = "split";
  c.h_q = 3;
  c.kv_len = {700, 900, 64, 500, 0, 300};
  Outcome const split = check_invariance(c, bench);
  EXPECT_EQ(split.status, Status::kFailed);
  EXPECT_NE(split.text.find(" differs at byte "), std::string::npos) << split.text;
  c.batch_invariant = true;
  c.chunk_tokens = 128;
  Outcome const chunked = check_invariance(c, bench);
  EXPECT_EQ(chunked.status, Status::kPassed) << chunked.text;
}

}  // namespace
}  // namespace flashmla::conformance
