#include "tools/flashmla/serving.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "conformance/random.hpp"

namespace flashmla::tools {
namespace {

constexpr double kEverythingArrived = 1e30;

std::vector<TraceRequest> requests_of(std::vector<std::pair<int64_t, int64_t>> const& lengths) {
  std::vector<TraceRequest> requests;
  for (auto const& [input, output] : lengths) requests.push_back({0, input, output});
  return requests;
}

/// What must hold of every batch: each request has exactly the pages it needs, none are lost, only pages before the one
/// that is written are held by several, and every copy of the step goes to such a written page or one before it.
void expect_consistent(ServingLoop const& loop, std::vector<Running> const& batch, ServingLimits const& limits) {
  std::map<int32_t, int> held;
  for (Running const& request : batch) {
    EXPECT_EQ(static_cast<int64_t>(request.pages.size()), (request.kv_tokens + limits.page_tokens - 1) / limits.page_tokens);
    std::set<int32_t> own;
    for (int32_t const page : request.pages) {
      EXPECT_GE(page, 0);
      EXPECT_LT(page, limits.num_pages);
      EXPECT_TRUE(own.insert(page).second) << "page " << page << " is held twice by one request";
      EXPECT_TRUE(++held[page] == 1 || limits.share_prefixes) << "page " << page << " is held twice";
    }
    EXPECT_EQ(request.new_slot(limits.page_tokens) / limits.page_tokens, request.pages.back());
    EXPECT_EQ(request.new_slot(limits.page_tokens) % limits.page_tokens, (request.kv_tokens - 1) % limits.page_tokens);
  }
  for (Running const& request : batch) EXPECT_EQ(held[request.pages.back()], 1) << "a page that is written is shared";
  for (PageCopy const& copy : loop.copies()) EXPECT_EQ(held[copy.target], 1) << "a page that is copied to is not its owner's alone";
  EXPECT_EQ(loop.pages_in_use(), static_cast<int64_t>(held.size()));
  EXPECT_LE(loop.pages_in_use() + loop.pages_kept(), limits.num_pages);
  EXPECT_LE(static_cast<int64_t>(batch.size()), limits.max_batch);
}

TEST(ServingLoop, OneRequestMakesItsTokensAndLeaves) {
  ServingLimits const limits{4, 64, 8};
  ServingLoop loop(requests_of({{63, 3}}), limits);
  std::vector<int64_t> lengths;
  while (!loop.finished()) {
    auto const& batch = loop.begin_step(kEverythingArrived);
    ASSERT_EQ(batch.size(), 1u);
    expect_consistent(loop, batch, limits);
    lengths.push_back(batch[0].kv_tokens);
    loop.end_step();
  }
  EXPECT_EQ(lengths, (std::vector<int64_t>{64, 65, 66}));
  EXPECT_EQ(loop.counts().finished, 1);
  EXPECT_EQ(loop.counts().tokens, 3);
  EXPECT_EQ(loop.pages_in_use(), 0);
}

TEST(ServingLoop, AnEmptyPromptStartsWithItsFirstToken) {
  ServingLoop loop(requests_of({{0, 2}}), {4, 64, 8});
  EXPECT_EQ(loop.begin_step(kEverythingArrived)[0].kv_tokens, 1);
}

TEST(ServingLoop, TurnsAwayWhatNeverFitsAndWhatAsksForNothing) {
  ServingLoop loop(requests_of({{100, 0}, {64 * 4, 1}, {64 * 4 - 1, 1}}), {4, 64, 8});
  EXPECT_EQ(loop.counts().empty, 1);
  EXPECT_EQ(loop.counts().rejected, 1);
  EXPECT_EQ(loop.waiting(), 1);
  EXPECT_EQ(loop.max_request_pages(), 4);
}

TEST(ServingLoop, AdmitsInTraceOrderUpToTheBatchLimit) {
  ServingLoop loop(requests_of({{10, 5}, {10, 5}, {10, 5}}), {100, 64, 2});
  auto const& batch = loop.begin_step(kEverythingArrived);
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0].index, 0u);
  EXPECT_EQ(batch[1].index, 1u);
  EXPECT_EQ(loop.waiting(), 1);
}

TEST(ServingLoop, WaitsForArrivals) {
  std::vector<TraceRequest> const requests = {{1.0, 10, 1}, {2.0, 10, 1}};
  ServingLoop loop(requests, {100, 64, 8});
  EXPECT_TRUE(loop.begin_step(0.5).empty());
  EXPECT_FALSE(loop.finished());
  EXPECT_DOUBLE_EQ(loop.next_arrival_s(), 1.0);
  EXPECT_EQ(loop.begin_step(1.0).size(), 1u);
  loop.end_step();
  EXPECT_EQ(loop.begin_step(2.0)[0].index, 1u);
  loop.end_step();
  EXPECT_TRUE(loop.finished());
}

TEST(ServingLoop, PreemptsTheYoungestWhenPagesRunOut) {
  // 10 pages of 4 tokens: both start with 4 pages, one is held back, and growth meets in the middle.
  ServingLimits const limits{10, 4, 8};
  ServingLoop loop(requests_of({{15, 20}, {15, 20}}), limits);
  bool seen_alone = false;
  std::map<size_t, int64_t> made;
  for (int step = 0; !loop.finished(); ++step) {
    ASSERT_LT(step, 1000);
    auto const& batch = loop.begin_step(kEverythingArrived);
    expect_consistent(loop, batch, limits);
    if (loop.counts().preempted > 0 && loop.counts().finished == 0 && batch.size() == 1) {
      seen_alone = true;
      EXPECT_EQ(batch[0].index, 0u) << "the elder stays";
      EXPECT_EQ(loop.waiting(), 1);
    }
    for (Running const& request : batch) ++made[request.index];
    loop.end_step();
  }
  EXPECT_TRUE(seen_alone);
  EXPECT_GE(loop.counts().preempted, 1);
  EXPECT_EQ(loop.counts().admitted, 2);
  EXPECT_EQ(loop.counts().finished, 2);
  EXPECT_EQ(made, (std::map<size_t, int64_t>{{0, 20}, {1, 20}})) << "a preempted request keeps what it has made";
}

TEST(ServingLoop, SharesPagesOfEqualPrompts) {
  // 600 tokens are 9 full pages and one that is not, which is copied; 65 more are in the first block only.
  ServingLimits const limits{100, 64, 8};
  ServingLoop loop({{0, 600, 2, {1, 2}}, {0, 600, 3, {1, 2}}, {0, 577, 1, {1, 3}}}, limits);
  auto const& batch = loop.begin_step(kEverythingArrived);
  ASSERT_EQ(batch.size(), 3u);
  expect_consistent(loop, batch, limits);
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(batch[1].pages[i], batch[0].pages[i]);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(batch[2].pages[i], batch[0].pages[i]);
  ASSERT_EQ(loop.copies().size(), 1u);
  EXPECT_EQ(loop.copies()[0].source, batch[0].pages[9]);
  EXPECT_EQ(loop.copies()[0].target, batch[1].pages[9]);
  EXPECT_EQ(loop.pages_in_use(), 10 + 1 + 2);
  EXPECT_EQ(loop.pages_kept(), 0);
  EXPECT_EQ(loop.counts().with_prefix, 2);
  EXPECT_EQ(loop.counts().prefix_tokens, 600 + 512);
  loop.end_step();
  EXPECT_TRUE(loop.begin_step(kEverythingArrived).size() == 2 && loop.copies().empty());
  loop.end_step();
  loop.begin_step(kEverythingArrived);
  EXPECT_EQ(loop.pages_kept(), 1 + 2) << "what only the first and the third prompt ended with";
  loop.end_step();
  EXPECT_TRUE(loop.finished());
  EXPECT_EQ(loop.pages_in_use(), 0);
  EXPECT_EQ(loop.pages_kept(), 10 + 2);
}

TEST(ServingLoop, FinishedPromptsServeUntilTheirPagesAreNeeded) {
  ServingLimits const limits{20, 64, 1};
  ServingLoop loop({{0, 600, 1, {1, 2}}, {0, 600, 1, {1, 2}}, {0, 1200, 1, {7, 8, 9}}, {0, 600, 1, {1, 2}}}, limits);
  std::vector<int64_t> prefix_tokens;
  while (!loop.finished()) {
    expect_consistent(loop, loop.begin_step(kEverythingArrived), limits);
    prefix_tokens.push_back(loop.counts().prefix_tokens);
    loop.end_step();
  }
  EXPECT_EQ(prefix_tokens, (std::vector<int64_t>{0, 600, 600, 600})) << "the third needed 19 of 20 pages";
}

/// Without sharing three requests do not fit; with it they do.
TEST(ServingLoop, SharingMakesRoom) {
  ServingLimits limits{30, 64, 8};
  std::vector<TraceRequest> const requests(3, {0, 1024, 3, {1, 2}});
  ServingLoop shared(requests, limits);
  EXPECT_EQ(shared.begin_step(kEverythingArrived).size(), 3u);
  EXPECT_EQ(shared.pages_in_use(), 16 + 3);
  limits.share_prefixes = false;
  ServingLoop apart(requests, limits);
  EXPECT_EQ(apart.begin_step(kEverythingArrived).size(), 1u);
  expect_consistent(apart, apart.begin_step(kEverythingArrived), limits);
}

struct RandomTrace {
  std::vector<TraceRequest> requests;
  int64_t tokens = 0, finished = 0;  // that a serving loop has to make
};

/// Prompts of a small tree of blocks, so that many begin alike and some are equal.
RandomTrace random_trace(conformance::Random& random, ServingLimits const& limits) {
  RandomTrace trace;
  bool const has_prefixes = random.below(4) != 0;
  for (int64_t i = random.below(30) + 1; i > 0; --i) {
    trace.requests.push_back({static_cast<double>(random.below(40)), random.below(limits.page_tokens * 20), random.below(30)});
    TraceRequest& request = trace.requests.back();
    if (has_prefixes && random.below(3) != 0) request.input_tokens = random.below(4) * 512 + random.below(3) * 100;
    for (int64_t k = 0, id = 0; has_prefixes && k * kPrefixBlockTokens < request.input_tokens; ++k) {
      bool const is_partial = (k + 1) * kPrefixBlockTokens > request.input_tokens;
      id = 2 * id + 1 + random.below(2);
      request.prefix_ids.push_back(static_cast<int32_t>(is_partial ? id * 1000 + request.input_tokens % kPrefixBlockTokens : id * 1000));
    }
    bool const fits = request.input_tokens + request.output_tokens <= limits.num_pages * limits.page_tokens;
    if (!fits || request.output_tokens == 0) continue;
    trace.tokens += request.output_tokens;
    ++trace.finished;
  }
  return trace;
}

/// Against a plain model: however requests, pages and prefixes fall, every request that fits makes exactly its tokens, its
/// length grows by one a step, and at the end every page is free or kept.
TEST(ServingLoop, LosesNothingOverRandomTraces) {
  conformance::Random random(7);
  int64_t with_prefix = 0, copied = 0, preempted = 0;
  for (int trial = 0; trial < 1000; ++trial) {
    ServingLimits const limits{random.below(100) + 2, int64_t{1} << random.below(8), random.below(8) + 1, random.below(5) != 0};
    auto const [requests, expected_tokens, expected_finished] = random_trace(random, limits);
    ServingLoop loop(requests, limits);
    std::map<size_t, int64_t> length;
    double now = 0;
    for (int64_t step = 0; !loop.finished(); ++step) {
      ASSERT_LT(step, 200000) << "the loop does not end";
      auto const& batch = loop.begin_step(now);
      expect_consistent(loop, batch, limits);
      if (batch.empty()) now = std::max(now, loop.next_arrival_s());
      for (Running const& request : batch) {
        auto const found = length.find(request.index);
        int64_t const before = found == length.end() ? requests[request.index].input_tokens : found->second;
        EXPECT_EQ(request.kv_tokens, before + 1);
        length[request.index] = request.kv_tokens;
      }
      loop.end_step();
      now += 0.5;
      ASSERT_FALSE(testing::Test::HasFailure()) << "trial " << trial << ", step " << step;
    }
    EXPECT_EQ(loop.counts().tokens, expected_tokens);
    EXPECT_EQ(loop.all_tokens(), expected_tokens);
    EXPECT_EQ(loop.counts().finished, expected_finished);
    EXPECT_EQ(loop.counts().admitted, expected_finished);
    EXPECT_EQ(loop.counts().finished + loop.counts().rejected + loop.counts().empty, static_cast<int64_t>(requests.size()));
    EXPECT_EQ(loop.pages_in_use(), 0);
    for (auto const& [index, tokens] : length) EXPECT_EQ(tokens, requests[index].input_tokens + requests[index].output_tokens);
    with_prefix += loop.counts().with_prefix, copied += loop.counts().copied_pages, preempted += loop.counts().preempted;
  }
  for (int64_t const happened : {with_prefix, copied, preempted}) EXPECT_GT(happened, 50);
}

}  // namespace
}  // namespace flashmla::tools
