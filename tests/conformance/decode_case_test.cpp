// Cases are data; these are the rules that the data keeps.
#include "conformance/decode_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "conformance/conformance.hpp"
#include "conformance/decode_check.hpp"
#include "conformance/decode_inputs.hpp"

namespace flashmla::conformance {
namespace {

std::set<std::string> names(Tier tier) {
  std::set<std::string> all;
  for (Check const& check : checks(tier)) EXPECT_TRUE(all.insert(check.name).second) << check.name << " twice";
  return all;
}

TEST(DecodeCase, NamesAreUniqueAndTiersNest) {
  std::set<std::string> const smoke = names(Tier::kSmoke), ci = names(Tier::kCi), full = names(Tier::kFull);
  EXPECT_TRUE(std::includes(ci.begin(), ci.end(), smoke.begin(), smoke.end()));
  EXPECT_TRUE(std::includes(full.begin(), full.end(), ci.begin(), ci.end()));
  EXPECT_LT(smoke.size(), ci.size());
  EXPECT_LT(ci.size(), full.size());
}

TEST(DecodeCase, TheDenseMatrixIsWhole) {
  std::vector<DecodeCase> const matrix = dense_matrix();
  EXPECT_EQ(matrix.size(), 2304u);
  auto const count = [&](auto const& has) { return std::count_if(matrix.begin(), matrix.end(), has); };
  for (int32_t const batch : {1, 2, 6, 64}) EXPECT_EQ(count([=](DecodeCase const& c) { return c.batch() == batch; }), 576);
  for (int32_t const q_tokens : {1, 2, 4}) EXPECT_EQ(count([=](DecodeCase const& c) { return c.q_tokens == q_tokens; }), 768);
  EXPECT_EQ(count([](DecodeCase const& c) { return c.causal; }), 1152);
  EXPECT_EQ(count([](DecodeCase const& c) { return c.h_kv == 1; }), 1008);
  EXPECT_EQ(count([](DecodeCase const& c) { return c.h_q % c.h_kv != 0; }), 0);
  std::vector<DecodeCase> const full = decode_cases(Tier::kFull);
  EXPECT_EQ(std::count_if(full.begin(), full.end(), [](DecodeCase const& c) { return c.name.starts_with("dense."); }), 2304);
}

TEST(DecodeCase, ZeroLengthsAreMixedIntoABatchOf128) {
  std::vector<DecodeCase> const ci = decode_cases(Tier::kCi);
  auto const zeros = [](DecodeCase const& c) { return std::count(c.kv_len.begin(), c.kv_len.end(), 0); };
  EXPECT_TRUE(std::any_of(ci.begin(), ci.end(),
                          [&](DecodeCase const& c) { return c.batch() == 128 && zeros(c) > 10 && zeros(c) < 118 && c.h_q == 128; }));
}

TEST(DecodeCase, CiMeetsEveryValueOfEveryAxis) {
  std::set<std::string> met;
  for (DecodeCase const& c : dense_matrix())
    if (runs_in(Tier::kCi, c)) {
      for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
        end = c.name.find('.', at);
        met.insert(c.name.substr(at, end - at));
      }
    }
  for (char const* const value : {"b1",  "b2",   "b6",   "b64",   "sq1",   "sq2",  "sq4",  "len20", "len140", "len4096", "hq1",   "hq3",
                                  "hq9", "hq63", "hq64", "hq126", "hq128", "hkv1", "hkv2", "hkv3",  "hkv8",   "varlen",  "causal"})
    EXPECT_TRUE(met.contains(value)) << value;
}

/// The library accepts every problem, or says that it is not built yet: a case that asks for nonsense would hide behind
/// an error.
TEST(DecodeCase, EveryCaseIsALegalProblem) {
  for (DecodeCase const& c : option_cases(Tier::kFull)) {
    EXPECT_TRUE(c.visible_len.empty() || static_cast<int64_t>(c.visible_len.size()) == c.total_q()) << c.name;
    EXPECT_TRUE(!c.is_ragged() || c.q_offsets.size() == c.kv_len.size() + 1) << c.name;
    EXPECT_TRUE(c.schedule_q_offsets.empty() || c.schedule_q_offsets.size() == c.schedule_batch() + 1) << c.name;
    EXPECT_EQ(c.h_q % c.h_kv, 0) << c.name;
    EXPECT_FALSE(c.rank3_cache && c.h_kv != 1) << c.name;
    EXPECT_GE(c.runs, 2) << c.name;
    for (BadPage const& bad : c.bad_pages)
      EXPECT_LT(int64_t{bad.entry} * c.page_tokens, c.kv_len.at(static_cast<size_t>(bad.request))) << c.name;
    flashmla_problem const problem = make_problem(c);
    flashmla_target target{};
    target.struct_size = sizeof target;
    flashmla_plan* plan = nullptr;
    flashmla_status const status = flashmla_plan_create(&problem, &target, &plan);
    EXPECT_TRUE(status == FLASHMLA_OK || status == FLASHMLA_UNSUPPORTED) << c.name << ": " << flashmla_last_error();
    flashmla_plan_destroy(plan);
  }
}

TEST(DecodeCase, RaggedRowsToCheckAreThoseOfRequests) {
  DecodeCase c;
  c.kv_len = {50, 900, 0, 60};
  c.q_tokens = 9;
  c.h_q = 5;
  c.q_offsets = {2, 3, 3, 12, 14};
  c.ragged_tokens = 20;
  EXPECT_EQ(c.total_q(), 20);
  EXPECT_EQ(rows_to_check(c, 60).size(), 60u);  // all of them
  std::vector<reference::Row> const rows = rows_to_check(c, 16);
  EXPECT_EQ(rows.size(), 16u);
  for (reference::Row const& row : rows) EXPECT_LT(row.q_idx, c.tokens_of(row.request).count);
  for (int32_t const request : {0, 2, 3})
    EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [&](reference::Row const& row) { return row.request == request; })) << request;
}

TEST(DecodeCase, RowsToCheck) {
  DecodeCase c;
  c.kv_len = {50, 900, 0, 60};
  c.q_tokens = 2;
  c.h_q = 5;
  EXPECT_EQ(rows_to_check(c, 40).size(), 40u);

  std::vector<reference::Row> const rows = rows_to_check(c, 12);
  std::set<std::tuple<int32_t, int32_t, int32_t>> distinct;
  std::set<int32_t> requests, heads;
  for (reference::Row const& row : rows) {
    EXPECT_TRUE(distinct.insert({row.request, row.q_idx, row.head}).second);
    EXPECT_TRUE(row.request >= 0 && row.request < 4 && row.q_idx >= 0 && row.q_idx < 2 && row.head >= 0 && row.head < 5);
    requests.insert(row.request);
    heads.insert(row.head);
  }
  EXPECT_EQ(rows.size(), 12u);
  EXPECT_EQ(requests, (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_TRUE(heads.contains(0) && heads.contains(4));
}

}  // namespace
}  // namespace flashmla::conformance
