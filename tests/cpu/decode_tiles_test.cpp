// The kernel that multiplies tiles: on a scalar model of the tile instructions everywhere, and the model against hardware
// where there is AMX. The table's own row is in decode_test.cpp, like all others.
#include <cstring>
#include <random>

#include "cpu/decode_fixture.hpp"
#include "cpu/decode_plan.hpp"
#include "cpu/generic/kernels.hpp"
#include "cpu/isa/tiles.hpp"
#include "cpu/isa_table.hpp"

namespace flashmla::cpu::test {
namespace {

/// The portable set with the tile unit of the model.
struct ModelIsa : Scalar {
  using TileUnit = ModelTiles;
  static constexpr bool kHasTiles = true;
  static constexpr int kNarrowRowsBf16 = 0;

  static void interleave_two(NextColumns const& columns, ptrdiff_t second, int num_pairs) {
    for (int p = 0; p < num_pairs; ++p)
      for (int i = 0; i < 64; ++i)
        std::memcpy(columns.out + i / 32 * second + 32 * p + i % 32, columns.tokens[2 * p + i % 2] + columns.offset_bytes + i / 2 * 2,
                    sizeof(uint16_t));
  }
  static void store_pairs(uint16_t* out, Rows const& first, Rows const& second) {
    float row[2][16];
    store(row[0], first);
    store(row[1], second);
    for (int i = 0; i < 32; ++i) out[i] = to_bf16(row[i % 2][i / 2]);
  }
};

constexpr Kernels kModelKernels = KernelsOf<ModelIsa>::table();
constexpr IsaRow kModelRow = {FLASHMLA_ISA_AMX_BF16, "model", "", &kModelKernels};

void expect_correct(CallSetup const& s) {
  SCOPED_TRACE(testing::Message() << "h_q " << s.h_q << " page " << s.page_tokens << " q_tokens " << s.q_tokens);
  DecodeFixture f(s);
  f.use_plan(std::make_unique<DecodePlan>(f.problem, kModelRow, Executor(ThreadPool::shared(s.threads))));
  f.update();
  f.run();
  f.expect_correct();
}

TEST(DecodeTiles, HeadsOnTheModel) {
  for (int32_t const h_q : {1, 16, 17, 33, 48, 64}) {
    CallSetup s;
    s.h_q = h_q;
    s.page_tokens = h_q % 2 == 0 ? 64 : 3;
    s.kv_len = {1, 0, 16, 17, 64, 65, 200};
    expect_correct(s);
  }
}

TEST(DecodeTiles, CausalPairsAndSplitsOnTheModel) {
  CallSetup s;
  s.h_q = 20;
  s.q_tokens = 3;
  s.causal = true;
  s.pair_cache = s.pair_q = true;
  s.threads = 3;
  s.kv_len = {500, 2, 33};
  expect_correct(s);
}

class HardwareTest : public testing::Test {
 protected:
  void SetUp() override {
    for (core::KernelRow const& row : kernel_rows())
      if (row.isa == FLASHMLA_ISA_AMX_BF16 && !row.usable) GTEST_SKIP() << row.reason;
  }
};

TEST_F(HardwareTest, AmxComputesWhatTheModelDoes) {
  constexpr ptrdiff_t kC = 80, kA = 68, kB = 64;
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<uint16_t> a(16 * kA / 2), b(16 * kB / 2);
  for (uint16_t& x : a) x = Scalar::to_bf16(draw(rng));
  for (uint16_t& x : b) x = Scalar::to_bf16(draw(rng));
  std::vector<float> model(16 * kC / 4, 0.5f), hardware = model;
  auto const call = [&](std::vector<float>& c) {
    return TileOperands{
        reinterpret_cast<char*>(c.data()), reinterpret_cast<char const*>(a.data()), reinterpret_cast<char const*>(b.data()), kC, kA, kB};
  };
  TilePrograms<ModelTiles>::all_products(call(model));
  kAmxTiles.all_products(call(hardware));
  for (size_t i = 0; i < model.size(); ++i) EXPECT_NEAR(hardware[i], model[i], 1e-3) << i;
  kAmxTiles.clear(call(hardware));
  for (size_t i = 0; i < hardware.size(); ++i) EXPECT_EQ(hardware[i], i % (kC / 4) < 16 ? 0.0f : 0.5f) << i;
}

}  // namespace
}  // namespace flashmla::cpu::test
