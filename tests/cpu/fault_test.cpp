// Bad lengths, page ids and schedules: masked, recorded once, cleared when asked for.
#include "cpu/decode_fixture.hpp"

namespace flashmla::cpu::test {
namespace {

void expect_fault(flashmla_fault const& fault, flashmla_fault_code code, int32_t request, int32_t position, int32_t value) {
  EXPECT_EQ(fault.code, code);
  EXPECT_EQ(fault.request, request);
  EXPECT_EQ(fault.position, position);
  EXPECT_EQ(fault.value, value);
}

CallSetup two_requests() {
  CallSetup s;
  s.threads = 3;
  s.kv_len = {300, 200};
  return s;
}

TEST(Fault, BadPagesAreMaskedAndTheFirstIsRecorded) {
  for (int32_t const page_tokens : {1, 16, 64, 100}) {
    for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_576, FLASHMLA_KV_FP16_576}) {
      CallSetup s = two_requests();
      s.page_tokens = page_tokens;
      s.format = format;
      DecodeFixture f(s);
      int64_t const columns = f.call.page_table_stride;
      f.table[static_cast<size_t>(columns)] = -1;  // request 1
      f.table[1] = 2147483647;                     // request 0
      f.table[2] = static_cast<int32_t>(f.call.num_pages);
      f.update();
      f.run();
      f.expect_correct();
      expect_fault(f.fault(), FLASHMLA_FAULT_PAGE_ID, 0, 1, 2147483647);
      EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE) << "a fault is reported once";
    }
  }
}

/// The first in the order of requests and entries, however the work is split.
TEST(Fault, TheFirstBadPageIsTheSameOnAnyNumberOfThreads) {
  for (int32_t threads = 1; threads <= 5; ++threads) {
    CallSetup s;
    s.kv_len = {64, 2000, 0, 700};
    s.page_tokens = 16;
    s.q_tokens = 2;
    s.causal = true;
    s.threads = threads;
    DecodeFixture f(s);
    for (auto const& [request, entry] : {std::pair(3, 0), std::pair(1, 120), std::pair(1, 31), std::pair(3, 40)})
      f.table[static_cast<size_t>(request * f.call.page_table_stride + entry)] = 1000000 + 100 * request + entry;
    f.update();
    f.run();
    expect_fault(f.fault(), FLASHMLA_FAULT_PAGE_ID, 1, 31, 1000131);
    f.kv_len[3] = -8;  // a bad length comes before bad pages
    f.run();
    expect_fault(f.fault(), FLASHMLA_FAULT_KV_LEN, 3, 0, -8);
  }
}

TEST(Fault, OnlyBadPagesIsAnEmptyRow) {
  CallSetup s;
  s.kv_len = {60};
  DecodeFixture f(s);
  f.table[0] = -5;
  f.update();
  f.run();
  f.expect_correct();
  EXPECT_EQ(f.lse[0], std::numeric_limits<float>::infinity());
  expect_fault(f.fault(), FLASHMLA_FAULT_PAGE_ID, 0, 0, -5);
}

TEST(Fault, LengthsAreClampedToTheTable) {
  DecodeFixture f(two_requests());
  f.kv_len[0] = -3;
  f.update();
  f.run();
  f.expect_correct();
  expect_fault(f.fault(), FLASHMLA_FAULT_KV_LEN, 0, 0, -3);

  DecodeFixture g(two_requests());
  g.call.table_pages = 2;  // 128 tokens
  g.update();
  g.run();
  g.expect_correct();
  expect_fault(g.fault(), FLASHMLA_FAULT_KV_LEN, 0, 0, 300);
}

TEST(Fault, BeyondMaxKvLenIsRecordedAndClamped) {
  DecodeFixture f(two_requests());
  f.problem.max_kv_len = 250;
  f.use_plan(make_backend()->make_plan(f.problem, f.target()));
  f.update();
  f.run();
  f.expect_correct();
  expect_fault(f.fault(), FLASHMLA_FAULT_KV_LEN, 0, 0, 300);
}

TEST(Fault, VisibleLenIsClamped) {
  CallSetup s = two_requests();
  s.q_tokens = 2;
  DecodeFixture f(s);
  std::vector<int32_t> const visible = {10, 300, -7, 1000};
  f.call.visible_len = visible.data();
  f.update();
  f.run();
  f.expect_correct();
  expect_fault(f.fault(), FLASHMLA_FAULT_VISIBLE_LEN, 1, 0, -7);
}

TEST(Fault, AScheduleForOthersComputesNothing) {
  DecodeFixture f(two_requests());
  f.run();  // never made
  EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_SCHEDULE_MISMATCH);

  int32_t const one = 5;
  f.plan->update({1, 1, &one}, f.schedule->data(), nullptr);
  f.run();
  expect_fault(f.fault(), FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, 1);
  EXPECT_TRUE(std::all_of(f.out.begin(), f.out.end(), [](uint8_t byte) { return byte == 0xff; }));
}

TEST(Fault, AScheduleWithOffsetsIsNoneForACallWithout) {
  CallSetup s = two_requests();
  s.q_tokens = 2;
  DecodeFixture uniform(s), ragged(s);
  ragged.use_offsets({0, 2, 4});
  uniform.update();
  ragged.update();
  std::swap(uniform.schedule, ragged.schedule);
  for (DecodeFixture* const f : {&uniform, &ragged}) {
    f->run();
    expect_fault(f->fault(), FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, 2);
    EXPECT_TRUE(std::all_of(f->out.begin(), f->out.end(), [](uint8_t byte) { return byte == 0xff; }));
  }
}

TEST(Fault, OffsetsAreClampedAndTheFirstBadOneIsRecorded) {
  CallSetup s = two_requests();
  s.q_tokens = 2;
  for (auto const& [offsets, request, position] : {std::tuple(std::vector<int32_t>{-1, 2, 4}, 0, 0),
                                                   {{0, 3, 4}, 0, 1},
                                                   {{3, 1, 1}, 0, 1},
                                                   {{0, 1, 1000}, 1, 2},
                                                   {{INT32_MIN, INT32_MAX, INT32_MAX}, 0, 0},
                                                   {{0, INT32_MAX, INT32_MIN}, 0, 1}}) {
    DecodeFixture f(s);
    f.use_offsets(offsets);
    f.update();
    f.run();
    f.expect_correct();
    expect_fault(f.fault(), FLASHMLA_FAULT_Q_OFFSETS, request, position, offsets[static_cast<size_t>(position)]);
  }
}

/// Two plans of one problem differ in where things lie in a schedule when they differ in the number of threads.
TEST(Fault, AScheduleOfAnotherNumberOfThreadsComputesNothing) {
  for (auto const& [made_for, used_by] : {std::pair(2, 3), std::pair(3, 2), std::pair(4, 3), std::pair(3, 4)}) {
    SCOPED_TRACE(std::to_string(made_for) + " threads made it, " + std::to_string(used_by) + " use it");
    CallSetup s = two_requests();
    s.kv_len = {3000, 70};  // the first is split
    s.threads = made_for;
    DecodeFixture maker(s);
    s.threads = used_by;
    DecodeFixture f(s);
    Buffer shared(std::max(maker.plan->schedule_bytes(), f.plan->schedule_bytes()));
    maker.plan->update({2, 1, s.kv_len.data()}, shared.data(), nullptr);
    f.plan->run(f.call, shared.data(), f.workspace->data(), nullptr);
    EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_SCHEDULE_MISMATCH);
    EXPECT_TRUE(std::all_of(f.out.begin(), f.out.end(), [](uint8_t byte) { return byte == 0xff; }));
  }
}

/// Whatever was written over a schedule, a run either records it, or gives the right answer (only the balance changed). Under
/// AddressSanitizer this shows too that nothing outside the call's memory is touched.
void expect_recorded_or_harmless(bool is_ragged) {
  CallSetup s;
  s.kv_len = {300, 0, 700, 64};
  s.threads = 4;
  s.h_q = 2;
  s.q_tokens = is_ragged ? 3 : 1;
  DecodeFixture f(s);
  if (is_ragged) f.use_offsets({0, 3, 4, 4, 6});
  f.update();
  size_t const num_words = f.plan->schedule_bytes() / sizeof(int32_t);
  int32_t* const words = static_cast<int32_t*>(f.schedule->data());
  std::vector<int32_t> const good(words, words + num_words);
  std::mt19937 random(5);
  int recorded = 0;
  for (int round = 0; round < 800; ++round) {
    std::copy(good.begin(), good.end(), words);
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      int32_t const junk[] = {static_cast<int32_t>(random()), static_cast<int32_t>(random() % 6), -1, INT32_MAX, INT32_MIN};
      words[random() % num_words] = junk[random() % 5];
    }
    std::fill(f.out.begin(), f.out.end(), uint8_t{0xff});
    f.run();
    if (f.fault().code == FLASHMLA_FAULT_SCHEDULE_MISMATCH) ++recorded;
    else f.expect_correct();
    ASSERT_FALSE(testing::Test::HasFailure()) << "round " << round;
  }
  EXPECT_GT(recorded, 200);
}

TEST(Fault, AnOverwrittenScheduleIsRecordedOrHarmless) { expect_recorded_or_harmless(false); }
TEST(Fault, AnOverwrittenRaggedScheduleIsRecordedOrHarmless) { expect_recorded_or_harmless(true); }

TEST(Fault, TheFirstFaultStaysUntilAskedFor) {
  DecodeFixture f(two_requests());
  f.table[0] = -1;
  f.update();
  f.run();
  f.table[0] = -2;
  f.run();
  expect_fault(f.fault(), FLASHMLA_FAULT_PAGE_ID, 0, 0, -1);
  f.run();
  expect_fault(f.fault(), FLASHMLA_FAULT_PAGE_ID, 0, 0, -2);
  f.run();
  f.plan->reset(f.workspace->data(), nullptr);
  EXPECT_EQ(f.fault().code, FLASHMLA_FAULT_NONE);
}

}  // namespace
}  // namespace flashmla::cpu::test
