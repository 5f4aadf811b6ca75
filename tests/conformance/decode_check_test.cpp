// A check that cannot fail proves nothing: here outputs are tampered with on their way to the judge, and the judge must
// notice.
#include "conformance/decode_check.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "conformance/mirrored_memory.hpp"

namespace flashmla::conformance {
namespace {

constexpr size_t kGuard = 256;
constexpr size_t kOutBytes = 3 * 16 * 512 * 2, kLseBytes = 3 * 16 * 4;

DecodeCase tampered_case() {
  DecodeCase c;
  c.name = "tampered";
  c.kv_len = {70, 0, 129};
  return c;
}

/// The verdict when `tamper` has its way with every copy of `bytes` that comes out.
template <class Tamper>
Outcome outcome_of(DecodeCase const& c, size_t bytes, Tamper const& tamper) {
  test::MirroredMemory memory;
  memory.tamper = [&](unsigned char* host, size_t copied, int copy) {
    if (copied == bytes + 2 * kGuard) tamper(host + kGuard, copy);
  };
  auto const oracle = make_reference_oracle(1);
  flashmla_target target{};
  target.struct_size = sizeof target;
  Outcome const outcome = check_decode(c, {target, memory, *oracle});
  memory.tamper = nullptr;
  EXPECT_EQ(memory.live, 0) << "memory leaked";
  return outcome;
}

void expect_failure(Outcome const& outcome, char const* part) {
  EXPECT_EQ(outcome.status, Status::kFailed);
  EXPECT_NE(outcome.text.find(part), std::string::npos) << outcome.text;
}

void double_it(unsigned char* bf16) {
  uint16_t code;
  std::memcpy(&code, bf16, 2);
  code = static_cast<uint16_t>(code + 0x80);  // one more in the exponent
  std::memcpy(bf16, &code, 2);
}

TEST(DecodeCheck, PassesUntouched) {
  Outcome const outcome = outcome_of(tampered_case(), kOutBytes, [](unsigned char*, int) {});
  EXPECT_EQ(outcome.status, Status::kPassed) << outcome.text;
  EXPECT_GT(outcome.out_l2, 0);
}

TEST(DecodeCheck, CatchesAWrongRow) {
  auto const tamper = [](unsigned char* out, int) {
    for (size_t d = 0; d < 512; ++d) double_it(out + (2 * 16 + 15) * 1024 + 2 * d);
  };
  expect_failure(outcome_of(tampered_case(), kOutBytes, tamper), "elements differ; first out[2, 0, 15, ");
}

/// Half a percent everywhere in one small row: within bounds for each element and for the tensor.
TEST(DecodeCheck, CatchesASlightlyWrongRow) {
  auto const tamper = [](unsigned char* out, int) {
    for (size_t d = 0; d < 512; ++d) out[(2 * 16 + 15) * 1024 + 2 * d] ^= 1;
  };
  expect_failure(outcome_of(tampered_case(), kOutBytes, tamper), "out[2, 0, 15] has a relative L2 error of more than 0.0042");
}

TEST(DecodeCheck, CatchesSwappedHeads) {
  auto const tamper = [](unsigned char* out, int) { std::swap_ranges(out + 3 * 1024, out + 4 * 1024, out + 4 * 1024); };
  expect_failure(outcome_of(tampered_case(), kOutBytes, tamper), "first out[0, 0, 3, 0]");
}

TEST(DecodeCheck, CatchesAValueInAnEmptyRow) {
  auto const tamper = [](unsigned char* out, int) { out[16 * 1024 + 1] = 0x30; };
  expect_failure(outcome_of(tampered_case(), kOutBytes, tamper), "out[1, 0, 0, 0] is not 0");
}

TEST(DecodeCheck, CatchesANumberThatWasNotWritten) {
  expect_failure(
      outcome_of(tampered_case(), kOutBytes, [](unsigned char* out, int) { std::memset(out + 2 * 16 * 1024 + 77 * 2, 0xff, 2); }),
      "out[2, 0, 0] holds NaN");
  expect_failure(outcome_of(tampered_case(), kLseBytes, [](unsigned char* lse, int) { std::memset(lse + 4, 0xff, 4); }),
                 "lse of row [0, 0, 1] is NaN");
}

TEST(DecodeCheck, CatchesAWrongLse) {
  auto const tamper = [](unsigned char* lse, int) {
    float value;
    std::memcpy(&value, lse, 4);
    value += 3e-4f;
    std::memcpy(lse, &value, 4);
  };
  expect_failure(outcome_of(tampered_case(), kLseBytes, tamper), "first lse of row [0, 0, 0]");
}

TEST(DecodeCheck, CatchesWritesOutsideTheViews) {
  expect_failure(outcome_of(tampered_case(), kOutBytes, [](unsigned char* out, int) { out[kOutBytes] = 0; }), "memory around out");
  expect_failure(outcome_of(tampered_case(), kLseBytes, [](unsigned char* lse, int) { lse[-1] = 0; }), "memory around lse");
  DecodeCase padded = tampered_case();
  padded.padded_out = true;
  expect_failure(outcome_of(padded, (3 * 16 - 1) * 528 * 2 + 512 * 2, [](unsigned char* out, int) { out[528 * 2 - 1] = 0; }),
                 "padding of out behind row 0");
}

TEST(DecodeCheck, CatchesARunThatGivesOtherBits) {
  auto const tamper = [](unsigned char* out, int copy) { out[100] ^= copy > 2 ? 1 : 0; };
  expect_failure(outcome_of(tampered_case(), kOutBytes, tamper), "run 2 gives other bits than run 1: out at byte 100");
}

/// An oracle that knows one row better.
class WrongOracle final : public Oracle {
 public:
  [[nodiscard]] flashmla_device_kind memory() const override { return FLASHMLA_CPU; }
  [[nodiscard]] int64_t row_budget(double) const override { return 1000; }
  void decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
              double* lse) override {
    make_reference_oracle(1)->decode(problem, call, rows, out, lse);
    out[5 * 512 + 9] += 0.01;
  }
};

TEST(DecodeCheck, BelievesItsOracle) {
  auto const memory = make_host_memory();
  WrongOracle oracle;
  flashmla_target target{};
  target.struct_size = sizeof target;
  expect_failure(check_decode(tampered_case(), {target, *memory, oracle}), "1 of 24576 elements differ; first out[0, 0, 5, 9]");
}

TEST(DecodeCheck, SkipsInTheLibrarysWords) {
  DecodeCase c = tampered_case();
  c.format = FLASHMLA_KV_FP8_V32_656;
  auto const memory = make_host_memory();
  auto const oracle = make_reference_oracle(1);
  flashmla_target target{};
  target.struct_size = sizeof target;
  Outcome const outcome = check_decode(c, {target, *memory, *oracle});
  EXPECT_EQ(outcome.status, Status::kSkipped);
  EXPECT_NE(outcome.text.find("FP8_V32_656"), std::string::npos) << outcome.text;
}

}  // namespace
}  // namespace flashmla::conformance
