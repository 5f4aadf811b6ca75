// Random cases: legal, small, the same for the same seed, and every option among few of them; some run on the CPU.
#include "conformance/random_case.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "conformance/decode_check.hpp"
#include "conformance/decode_inputs.hpp"
#include "core/kv_format.hpp"

namespace flashmla::conformance {
namespace {

constexpr uint64_t kSeeds = 2000;

TEST(RandomCase, IsSmallAndLegal) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    DecodeCase const c = random_case(seed);
    ASSERT_GE(c.batch(), 1) << text_of(c);
    EXPECT_EQ(c.h_q % c.h_kv, 0) << text_of(c);
    EXPECT_LE(int64_t{c.batch()} * c.q_tokens * c.h_q, 2048) << text_of(c);
    EXPECT_TRUE(c.visible_len.empty() || static_cast<int64_t>(c.visible_len.size()) == c.total_q()) << text_of(c);
    EXPECT_TRUE(c.schedule_matches()) << text_of(c);
    EXPECT_FALSE(c.rank3_cache && c.h_kv != 1) << text_of(c);
    int64_t pages = 0;
    for (int32_t const length : c.kv_len) pages += (length + c.page_tokens - 1) / c.page_tokens;
    EXPECT_LE(pages * c.page_tokens * c.h_kv * 1152, 20 << 20) << text_of(c);
    for (BadPage const& bad : c.bad_pages)
      EXPECT_LT(int64_t{bad.entry} * c.page_tokens, c.kv_len.at(static_cast<size_t>(bad.request))) << text_of(c);
    flashmla_problem const problem = make_problem(c);
    flashmla_target target{};
    target.struct_size = sizeof target;
    flashmla_plan* plan = nullptr;
    EXPECT_EQ(flashmla_plan_create(&problem, &target, &plan), FLASHMLA_OK) << text_of(c) << ": " << flashmla_last_error();
    flashmla_plan_destroy(plan);
  }
}

TEST(RandomCase, MeetsEveryOption) {
  std::set<int32_t> pages, kv_heads;
  std::set<QLayout> queries;
  std::set<CacheLayout> caches;
  std::set<Sink> sinks;
  std::set<flashmla_kv_format> formats;
  std::set<std::string> others;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    DecodeCase const c = random_case(seed);
    EXPECT_EQ(text_of(c), text_of(random_case(seed)));
    pages.insert(c.page_tokens), kv_heads.insert(c.h_kv), queries.insert(c.q_layout), caches.insert(c.cache_layout), sinks.insert(c.sink);
    formats.insert(c.format);
    if (c.causal && c.q_tokens > 8) others.insert("short prefill");
    if (!c.visible_len.empty()) others.insert("visible_len");
    if (!c.schedule_lengths.empty()) others.insert("stale");
    if (!c.bad_pages.empty()) others.insert("bad page");
    if (!c.want_lse) others.insert("no lse");
    if (std::accumulate(c.kv_len.begin(), c.kv_len.end(), 0) == 0) others.insert("all empty");
  }
  EXPECT_EQ(pages, (std::set<int32_t>{1, 2, 4, 8, 16, 32, 48, 64, 80, 128, 256}));
  for (int32_t const h_kv : {1, 2, 3, 4, 8, 16}) EXPECT_TRUE(kv_heads.contains(h_kv)) << h_kv;
  EXPECT_EQ(queries.size(), 4U);
  EXPECT_EQ(caches.size(), 4U) << "all but unaligned pages, which a GPU refuses";
  EXPECT_EQ(sinks.size(), 3U);
  for (core::KvFormat const& format : core::kKvFormats)
    EXPECT_EQ(formats.contains(format.id), core::is_served_on_gpu(format)) << format.name;
  EXPECT_EQ(others.size(), 6U);
}

TEST(RandomCase, RunsOnTheCpu) {
  auto const memory = make_host_memory();
  auto const oracle = make_reference_oracle();
  flashmla_target target{};
  target.struct_size = sizeof target;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    DecodeCase const c = random_case(seed);
    Outcome const outcome = check_decode(c, {target, *memory, *oracle});
    EXPECT_EQ(outcome.status, Status::kPassed) << text_of(c) << ": " << outcome.text;
  }
}

}  // namespace
}  // namespace flashmla::conformance
