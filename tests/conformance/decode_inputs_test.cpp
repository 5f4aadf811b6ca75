// Inputs are what their case says, and everything around them is poison.
#include "conformance/decode_inputs.hpp"

#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <set>

#include "conformance/decode_check.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

/// A case whose cache has tails, unused pages and padding.
DecodeCase poisoned_case() {
  DecodeCase c;
  c.name = "poisoned";
  c.kv_len = {70, 0, 129};
  c.h_q = c.h_kv = 2;
  c.q_tokens = 2;
  c.q_layout = QLayout::kPadded;
  c.cache_layout = CacheLayout::kPaddedPages;
  return c;
}

/// Elements of the cache that some request may read.
std::set<int64_t> readable(DecodeCase const& c, core::DecodeCall const& call) {
  std::set<int64_t> elems;
  for (int32_t b = 0; b < call.batch; ++b)
    for (int32_t t = 0; t < c.kv_len[static_cast<size_t>(b)]; ++t)
      for (int32_t h = 0; h < c.h_kv; ++h)
        for (int32_t d = 0; d < 576; ++d) {
          int64_t const page = call.page_table[b * call.page_table_stride + t / c.page_tokens];
          elems.insert(page * call.ckv_page_stride + t % c.page_tokens * call.ckv_token_stride + h * call.ckv_head_stride + d);
        }
  return elems;
}

TEST(DecodeInputs, TheCacheIsNanWhereNoRequestReads) {
  auto const memory = make_host_memory();
  DecodeCase const c = poisoned_case();
  DecodeInputs const inputs(c, *memory);
  core::DecodeCall const call = inputs.host_call();
  std::set<int64_t> const live = readable(c, call);
  EXPECT_EQ(live.size(), 199u * 2 * 576) << "no page serves two tokens";
  for (int64_t i = -100; i < (call.num_pages - 1) * call.ckv_page_stride + 64 * 2 * 576 + 100; ++i) {
    double const x = reference::load(FLASHMLA_BF16, call.ckv, i);
    ASSERT_EQ(std::isnan(x), !live.contains(i)) << i;
    if (live.contains(i)) {
      ASSERT_LT(std::abs(x), 0.36);
    }
  }
}

TEST(DecodeInputs, TheTableIsJunkPastTheLengths) {
  auto const memory = make_host_memory();
  DecodeCase const c = poisoned_case();
  DecodeInputs const inputs(c, *memory);
  core::DecodeCall const call = inputs.host_call();
  std::set<int32_t> pages, junk;
  for (int32_t b = 0; b < 3; ++b)
    for (int64_t entry = 0; entry < call.table_pages; ++entry) {
      int32_t const id = call.page_table[b * call.page_table_stride + entry];
      bool const used = entry * 64 < c.kv_len[static_cast<size_t>(b)];
      EXPECT_EQ(used, id >= 0 && id < call.num_pages);
      (used ? pages : junk).insert(id);
    }
  EXPECT_EQ(pages.size(), 5u);
  EXPECT_TRUE(junk.contains(2147480000) && junk.contains(-1) && junk.contains(INT_MIN));
  EXPECT_GT(call.num_pages, 5);
}

TEST(DecodeInputs, QueriesArePaddedWithNan) {
  auto const memory = make_host_memory();
  DecodeCase const c = poisoned_case();
  DecodeInputs const inputs(c, *memory);
  core::DecodeCall const call = inputs.host_call();
  for (int64_t row = 0; row < 3 * 2 * 2; ++row)
    for (int64_t d = 0; d < 640; ++d)
      if (row < 11 || d < 576) {
        EXPECT_EQ(std::isnan(reference::load(FLASHMLA_BF16, call.q_nope, row * 640 + d)), d >= 576);
      }
}

TEST(DecodeInputs, OutputsArePoisonUntilWritten) {
  auto const memory = make_host_memory();
  DecodeCase c = poisoned_case();
  c.padded_out = true;
  DecodeInputs inputs(c, *memory);
  core::DecodeCall const call = inputs.host_call();
  EXPECT_TRUE(std::isnan(reference::load(FLASHMLA_BF16, call.out, 0)));
  EXPECT_TRUE(std::isnan(call.lse[0]));
  EXPECT_EQ(inputs.overwritten(), "");
  reference::decode(make_core_problem(c), call);
  EXPECT_EQ(inputs.overwritten(), "");
  for (int64_t i = 0; i < 3 * 2 * 2; ++i) EXPECT_FALSE(std::isnan(reference::load(FLASHMLA_BF16, call.out, i * 528 + 511)));
  reference::store(FLASHMLA_BF16, call.out, 528 + 512, 0);
  EXPECT_NE(inputs.overwritten().find("behind row 1"), std::string::npos);
  inputs.poison_outputs();
  EXPECT_TRUE(std::isnan(call.lse[0]));
}

TEST(DecodeInputs, ACaseHasItsDataForGood) {
  auto const memory = make_host_memory();
  DecodeCase c = poisoned_case();
  auto const bytes = [&](DecodeInputs const& inputs) {
    auto const* const q = static_cast<uint16_t const*>(inputs.host_call().q_nope);
    return std::vector<uint16_t>(q, q + 576);
  };
  DecodeInputs const first(c, *memory), again(c, *memory);
  EXPECT_EQ(bytes(first), bytes(again));
  c.name = "another";
  EXPECT_NE(bytes(DecodeInputs(c, *memory)), bytes(first));
}

bool same_strides(core::RowStrides const& a, core::RowStrides const& b) {
  return a.batch == b.batch && a.token == b.token && a.head == b.head;
}

/// The call that the oracle gets is built from the case; the one that backends get, by core from the views.
TEST(DecodeInputs, CoreReadsTheViewsAsTheCaseMeansThem) {
  auto const memory = make_host_memory();
  for (DecodeCase const& c : option_cases(Tier::kSmoke)) {
    DecodeInputs const inputs(c, *memory);
    core::Problem const problem = core::validate(make_problem(c)), own = make_core_problem(c);
    EXPECT_EQ(problem.scale, own.scale) << c.name;
    EXPECT_EQ(problem.out_dtype, own.out_dtype) << c.name;
    EXPECT_EQ(problem.causal, own.causal) << c.name;
    core::DecodeCall const call = core::validate(problem, memory->device(), inputs.args()), mine = inputs.device_call();
    EXPECT_TRUE(call.q_nope == mine.q_nope && call.q_pe == mine.q_pe && call.ckv == mine.ckv && call.kpe == mine.kpe) << c.name;
    EXPECT_TRUE(same_strides(call.q_nope_stride, mine.q_nope_stride) && same_strides(call.q_pe_stride, mine.q_pe_stride)) << c.name;
    EXPECT_TRUE(same_strides(call.out_stride, mine.out_stride) && (!call.lse || same_strides(call.lse_stride, mine.lse_stride))) << c.name;
    EXPECT_TRUE(call.ckv_page_stride == mine.ckv_page_stride && call.kpe_page_stride == mine.kpe_page_stride) << c.name;
    EXPECT_TRUE(call.ckv_token_stride == mine.ckv_token_stride && call.kpe_token_stride == mine.kpe_token_stride) << c.name;
    EXPECT_TRUE(call.num_pages == mine.num_pages && call.table_pages == mine.table_pages &&
                call.page_table_stride == mine.page_table_stride)
        << c.name;
    EXPECT_TRUE(call.visible_len == mine.visible_len && call.sink == mine.sink && call.lse == mine.lse && call.out == mine.out) << c.name;
    EXPECT_TRUE(call.batch == mine.batch && call.q_tokens == mine.q_tokens) << c.name;
  }
}

}  // namespace
}  // namespace flashmla::conformance
