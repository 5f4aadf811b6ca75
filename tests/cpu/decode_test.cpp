// Dense decode against the reference: shapes, options, layouts, threads, on every instruction set of this machine.
#include <thread>
#include <tuple>

#include "core/names.hpp"
#include "cpu/decode_fixture.hpp"
#include "cpu/isa_table.hpp"

namespace flashmla::cpu::test {
namespace {

class DecodeTest : public testing::TestWithParam<flashmla_isa> {
 protected:
  void SetUp() override {
    for (core::KernelRow const& row : kernel_rows())
      if (row.isa == GetParam() && !row.usable) GTEST_SKIP() << row.reason;
  }
  [[nodiscard]] CallSetup base() const {
    CallSetup s;
    s.isa = GetParam();
    return s;
  }
  static void expect_correct(CallSetup const& s) {
    SCOPED_TRACE(testing::Message() << "format " << s.format << " h_q " << s.h_q << " h_kv " << s.h_kv << " q_tokens " << s.q_tokens
                                    << " page " << s.page_tokens << " threads " << s.threads << " causal " << s.causal);
    DecodeFixture f(s);
    f.update();
    f.run();
    f.expect_correct();
    EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
  }
};

TEST_P(DecodeTest, PageSizes) {
  for (int32_t const page : {1, 2, 16, 64, 100, 256}) {
    for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_576, FLASHMLA_KV_FP16_576}) {
      CallSetup s = base();
      s.page_tokens = page;
      s.format = format;
      s.h_q = 9;
      s.kv_len = {1, 333, 0, 64, 17};
      expect_correct(s);
    }
  }
}

TEST_P(DecodeTest, Heads) {
  for (auto const& [h_q, h_kv] :
       {std::tuple{1, 1}, {3, 1}, {9, 1}, {16, 1}, {63, 1}, {64, 1}, {128, 1}, {16, 2}, {64, 8}, {8, 8}, {9, 3}}) {
    CallSetup s = base();
    s.h_q = h_q;
    s.h_kv = h_kv;
    s.kv_len = {200, 65};
    expect_correct(s);
  }
}

TEST_P(DecodeTest, FewRowsWithEveryKindOfEnd) {
  for (int32_t h_q = 1; h_q <= 16; ++h_q) {  // both sides of where the narrow kernel ends
    for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_576, FLASHMLA_KV_FP16_576}) {
      CallSetup s = base();
      s.h_q = h_q;
      s.format = format;
      s.page_tokens = h_q % 3 == 0 ? 1 : h_q % 3 == 1 ? 64 : 24;
      s.q_tokens = h_q <= 4 ? 3 : 1;  // rows of a causal mask with limits of their own
      s.causal = true;
      s.pair_cache = h_q % 2 == 0;
      s.kv_len = {1, 15, 17, 47, 64, 65, 111, 128, 0, 200};
      expect_correct(s);
    }
  }
}

TEST_P(DecodeTest, QueryTokensWithAndWithoutCausal) {
  for (int32_t const q_tokens : {1, 2, 5}) {
    for (bool const causal : {false, true}) {
      CallSetup s = base();
      s.q_tokens = q_tokens;
      s.causal = causal;
      s.h_q = 20;
      s.kv_len = {150, 3, 1, 64, 66};  // shorter than the query tokens, too: rows that see nothing
      expect_correct(s);
    }
  }
}

TEST_P(DecodeTest, ThreadsSplitLongRequests) {
  for (int32_t const threads : {1, 2, 5}) {
    for (int32_t const h_q : {3, 16, 128}) {
      CallSetup s = base();
      s.threads = threads;
      s.h_q = h_q;
      s.sink = true;
      s.kv_len = {900, 0, 40};
      expect_correct(s);
    }
  }
}

TEST_P(DecodeTest, ManyRowTiles) {
  CallSetup s = base();
  s.h_q = 64;
  s.q_tokens = 13;  // 832 rows
  s.causal = true;
  s.threads = 3;
  s.kv_len = {90, 20};
  DecodeFixture f(s);
  EXPECT_LT(f.plan->shape().tile_rows, 832);
  f.update();
  f.run();
  f.expect_correct(400);
}

TEST_P(DecodeTest, Options) {
  for (flashmla_lse_base const lse_base : {FLASHMLA_LSE_NATURAL, FLASHMLA_LSE_BASE_2}) {
    for (flashmla_dtype const out : {FLASHMLA_BF16, FLASHMLA_FP16, FLASHMLA_FP32}) {
      for (float const scale : {0.0f, 1e-30f, 1 / 24.0f, 0.5f}) {
        CallSetup s = base();
        s.lse_base = lse_base;
        s.empty_row = lse_base == FLASHMLA_LSE_NATURAL ? FLASHMLA_EMPTY_LSE_MINUS_INF : FLASHMLA_EMPTY_LSE_PLUS_INF;
        s.out_dtype = out;
        s.scale = scale;
        s.sink = true;
        s.causal = true;
        s.q_tokens = 2;
        s.kv_len = {100, 1, 0};
        expect_correct(s);
      }
    }
  }
}

TEST_P(DecodeTest, PairsOfViews) {
  for (bool const pair_q : {false, true}) {
    for (bool const pair_cache : {false, true}) {
      CallSetup s = base();
      s.pair_q = pair_q;
      s.pair_cache = pair_cache;
      s.h_kv = 2;
      s.kv_len = {150};
      expect_correct(s);
    }
  }
}

TEST_P(DecodeTest, AnyOutputStrides) {
  CallSetup s = base();
  s.kv_len = {70, 5};
  s.q_tokens = 2;
  s.threads = 2;
  DecodeFixture f(s);
  f.out.assign(f.num_rows() * 600 * 4, 0xff);
  f.call.out = f.out.data();
  f.call.out_stride = {600, 2 * 600, 4 * 600};  // heads outermost
  f.call.lse_stride = {2, 1, 4};
  f.update();
  f.run();
  f.expect_correct();
  for (size_t row = 0; row < f.num_rows(); ++row)
    for (size_t at = 512 * 4; at < 600 * 4; ++at) ASSERT_EQ(f.out[row * 600 * 4 + at], 0xff) << "written outside a row";
}

TEST_P(DecodeTest, VisibleLenReplacesTheCausalRule) {
  CallSetup s = base();
  s.q_tokens = 3;
  s.causal = true;
  s.kv_len = {200, 90};
  s.threads = 2;
  DecodeFixture f(s);
  std::vector<int32_t> const visible = {0, 200, 64, 1, 17, 90};
  f.call.visible_len = visible.data();
  f.update();
  f.run();
  f.expect_correct();
  EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
}

TEST_P(DecodeTest, SameBitsTwiceAndWithoutLse) {
  CallSetup s = base();
  s.threads = 5;
  s.h_q = 33;
  s.kv_len = {1000, 77, 640};
  DecodeFixture f(s);
  f.update();
  f.run();
  std::vector<uint8_t> const first = f.out;
  std::vector<float> const first_lse = f.lse;
  for (int round = 0; round < 4; ++round) {
    f.out.assign(f.out.size(), 0xff);
    f.call.lse = round % 2 == 0 ? nullptr : f.lse.data();
    f.run();
    EXPECT_EQ(f.out, first);
    EXPECT_EQ(f.lse, first_lse);
  }
}

TEST_P(DecodeTest, StaleScheduleCostsBalanceOnly) {
  CallSetup s = base();
  s.threads = 4;
  s.kv_len = {700, 300, 64, 0};
  s.h_q = 17;
  for (std::vector<int32_t> const& earlier : {std::vector<int32_t>{1, 1, 1, 1}, {700, 700, 700, 700}, {0, 0, 0, 0}, {64, 700, 1, 300}}) {
    DecodeFixture f(s);
    f.plan->update({f.batch(), 1, earlier.data()}, f.schedule->data(), nullptr);
    f.run();
    f.expect_correct();
    EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
  }
}

/// A call has the same bits whichever way it says that requests have as many query tokens.
TEST_P(DecodeTest, EqualOffsetsGiveTheBitsOfAUniformCall) {
  for (bool const is_invariant : {false, true}) {
    CallSetup s = base();
    s.batch_invariant = is_invariant;
    s.threads = 3;
    s.h_q = 20;
    s.q_tokens = 3;
    s.causal = true;
    s.kv_len = {700, 2, 64, 130};
    DecodeFixture uniform(s), ragged(s);
    ragged.use_offsets({0, 3, 6, 9, 12});
    for (DecodeFixture* const f : {&uniform, &ragged}) {
      f->update();
      f->run();
      f->expect_correct();
      EXPECT_EQ(f->fault().code, FLASHMLA_FAULT_NONE);
    }
    EXPECT_EQ(uniform.out, ragged.out);
  }
}

TEST_P(DecodeTest, RaggedQueriesWithSchedulesOfAnyOffsets) {
  CallSetup s = base();
  s.threads = 4;
  s.h_q = 40;
  s.q_tokens = 20;  // more than a row tile
  s.causal = true;
  s.kv_len = {700, 300, 64, 30};
  for (std::vector<int32_t> const& earlier :
       {std::vector<int32_t>{1, 2, 2, 21, 40}, {0, 0, 0, 0, 0}, {0, 20, 40, 60, 80}, {0, 0, 0, 0, 1}, {9, -4, 80, 2, 0}}) {
    DecodeFixture f(s);
    f.use_offsets({1, 2, 2, 21, 40});
    f.plan->update({f.batch(), s.q_tokens, f.kv_len.data(), earlier.data()}, f.schedule->data(), nullptr);
    f.run();
    f.expect_correct();
    EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
    size_t const token_bytes = static_cast<size_t>(s.h_q) * 512 * 4;
    auto const is_untouched = [&](size_t first, size_t last) {
      return std::all_of(f.out.data() + first * token_bytes, f.out.data() + last * token_bytes, [](uint8_t byte) { return byte == 0xff; });
    };
    EXPECT_TRUE(is_untouched(0, 1) && is_untouched(40, 80)) << "rows of no request";
  }
}

TEST_P(DecodeTest, NoQueryTokensAtAll) {
  CallSetup s = base();
  s.kv_len = {70, 9};
  DecodeFixture f(s);
  f.use_offsets({0, 0, 0});
  f.call.total_q = 0;
  f.call.q_nope = f.call.q_pe = f.call.out = nullptr;
  f.update();
  f.run();
  EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
}

std::vector<flashmla_isa> every_isa() {
  std::vector<flashmla_isa> all;
  for (IsaRow const& row : isa_table()) all.push_back(row.isa);
  return all;
}
INSTANTIATE_TEST_SUITE_P(Isa, DecodeTest, testing::ValuesIn(every_isa()),
                         [](auto const& info) { return std::string(core::isa_name(info.param)); });

TEST(DecodeConcurrency, OnePlanServesManyThreads) {
  CallSetup s;
  s.threads = 2;
  s.kv_len = {300, 120};
  DecodeFixture f(s);
  f.update();
  f.run();
  std::vector<uint8_t> const want = f.out;
  std::vector<std::vector<uint8_t>> outs(4, std::vector<uint8_t>(f.out.size(), 0xff));
  std::vector<std::thread> threads;
  for (std::vector<uint8_t>& out : outs) {
    threads.emplace_back([&f, &out] {
      Buffer workspace(f.plan->workspace_bytes());
      f.plan->reset(workspace.data(), nullptr);
      core::DecodeCall call = f.call;
      call.out = out.data();
      call.lse = nullptr;
      for (int round = 0; round < 5; ++round) f.plan->run(call, f.schedule->data(), workspace.data(), nullptr);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::vector<uint8_t> const& out : outs) EXPECT_EQ(out, want);
}

}  // namespace
}  // namespace flashmla::cpu::test
