#include "core/problem.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/expect_error.hpp"

namespace flashmla::core {
namespace {

flashmla_problem good_problem() {
  flashmla_problem problem{};
  problem.struct_size = sizeof problem;
  problem.h_q = 16;
  problem.kv_format = FLASHMLA_KV_BF16_576;
  problem.max_batch = 8;
  return problem;
}

flashmla_target good_target(flashmla_device_kind kind = FLASHMLA_CPU) {
  flashmla_target target{};
  target.struct_size = sizeof target;
  target.device.kind = kind;
  return target;
}

TEST(Problem, DefaultsAreFilledIn) {
  Problem const problem = validate(good_problem());
  EXPECT_EQ(problem.h_kv, 1);
  EXPECT_EQ(problem.page_tokens, 64);
  EXPECT_EQ(problem.q_dtype, FLASHMLA_BF16);
  EXPECT_EQ(problem.out_dtype, FLASHMLA_BF16);
  EXPECT_EQ(problem.max_q_tokens, 1);
  EXPECT_EQ(problem.max_kv_len, 0);
  EXPECT_FALSE(problem.causal);
  EXPECT_FLOAT_EQ(problem.scale, 1.0f / 24.0f);
  flashmla_problem half = good_problem();
  half.kv_format = FLASHMLA_KV_FP16_576;
  EXPECT_EQ(validate(half).out_dtype, FLASHMLA_FP16);
}

TEST(Problem, ValuesArrive) {
  flashmla_problem raw = good_problem();
  raw.flags = FLASHMLA_PROBLEM_CAUSAL | FLASHMLA_PROBLEM_HAS_SCALE;
  raw.h_q = 128;
  raw.h_kv = 8;
  raw.page_tokens = 3;
  raw.out_dtype = FLASHMLA_FP32;
  raw.lse_base = FLASHMLA_LSE_BASE_2;
  raw.lse_layout = FLASHMLA_LSE_TOKENS_HEADS;
  raw.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  raw.max_q_tokens = 4;
  raw.max_kv_len = 1 << 20;
  Problem const problem = validate(raw);
  EXPECT_TRUE(problem.causal);
  EXPECT_EQ(problem.scale, 0.0f);
  EXPECT_EQ(problem.h_kv, 8);
  EXPECT_EQ(problem.page_tokens, 3);
  EXPECT_EQ(problem.out_dtype, FLASHMLA_FP32);
  EXPECT_EQ(problem.lse_base, FLASHMLA_LSE_BASE_2);
  EXPECT_EQ(problem.lse_layout, FLASHMLA_LSE_TOKENS_HEADS);
  EXPECT_EQ(problem.empty_row, FLASHMLA_EMPTY_LSE_MINUS_INF);
  EXPECT_EQ(problem.max_q_tokens, 4);
  EXPECT_EQ(problem.max_kv_len, 1 << 20);
}

struct BadProblem {
  flashmla_status status;
  char const* argument;
  char const* fragment;
  std::function<void(flashmla_problem&)> spoil;
};

std::vector<BadProblem> bad_problems() {
  constexpr flashmla_status kInvalid = FLASHMLA_INVALID_ARGUMENT, kUnsupported = FLASHMLA_UNSUPPORTED;
  using P = flashmla_problem;
  auto const scale = [](float value) {
    return [value](P& p) {
      p.flags |= FLASHMLA_PROBLEM_HAS_SCALE;
      p.scale = value;
    };
  };
  auto const invariant = [](int32_t chunk_tokens) {
    return [chunk_tokens](P& p) {
      p.flags |= FLASHMLA_PROBLEM_BATCH_INVARIANT;
      p.chunk_tokens = chunk_tokens;
    };
  };
  return {
      {kInvalid, "struct_size", "got 0", [](P& p) { p.struct_size = 0; }},
      {kInvalid, "struct_size", "got 92, expected 104", [](P& p) { p.struct_size = 92; }},
      {kInvalid, "struct_size", "got 4294967295", [](P& p) { p.struct_size = UINT32_MAX; }},
      {kInvalid, "flags", "unknown flag 256", [](P& p) { p.flags |= 256; }},
      {kInvalid, "reserved", "got 1", [](P& p) { p.reserved = 1; }},
      {kInvalid, "h_q", "got 0, expected at least 1", [](P& p) { p.h_q = 0; }},
      {kInvalid, "h_q", "got -4", [](P& p) { p.h_q = -4; }},
      {kUnsupported, "h_q", "got 129, expected at most 128", [](P& p) { p.h_q = 129; }},
      {kInvalid, "h_kv", "got 3, expected a divisor of h_q 16", [](P& p) { p.h_kv = 3; }},
      {kInvalid, "h_kv", "got 32, expected at most 16", [](P& p) { p.h_kv = 32; }},
      {kInvalid, "h_kv", "got -1", [](P& p) { p.h_kv = -1; }},
      {kInvalid, "kv_format", "required", [](P& p) { p.kv_format = 0; }},
      {kInvalid, "kv_format", "got 77", [](P& p) { p.kv_format = 77; }},
      {kUnsupported, "kv_format", "got FP8_V32_656, expected BF16_576, FP16_576, BF16_320, BF16_288 or FP32_576",
       [](P& p) { p.kv_format = FLASHMLA_KV_FP8_V32_656; }},
      {kInvalid, "page_tokens", "got -64", [](P& p) { p.page_tokens = -64; }},
      {kInvalid, "q_dtype", "got FP64, expected BF16, FP16 or FP32", [](P& p) { p.q_dtype = FLASHMLA_FP64; }},
      {kUnsupported, "q_dtype", "got FP32, expected BF16", [](P& p) { p.q_dtype = FLASHMLA_FP32; }},
      {kUnsupported, "q_dtype", "got FP16, expected BF16", [](P& p) { p.q_dtype = FLASHMLA_FP16; }},
      {kInvalid, "out_dtype", "got INT8", [](P& p) { p.out_dtype = FLASHMLA_INT8; }},
      {kInvalid, "out_dtype", "got 55", [](P& p) { p.out_dtype = 55; }},
      {kInvalid, "lse_base", "got 2", [](P& p) { p.lse_base = 2; }},
      {kInvalid, "lse_layout", "got -1", [](P& p) { p.lse_layout = -1; }},
      {kInvalid, "empty_row", "got 9", [](P& p) { p.empty_row = 9; }},
      {kInvalid, "chunk_tokens", "got 512, expected 0", [](P& p) { p.chunk_tokens = 512; }},
      {kInvalid, "chunk_tokens", "got 100, expected a multiple of 64", invariant(100)},
      {kInvalid, "chunk_tokens", "got -64", invariant(-64)},
      {kInvalid, "scale", "got 0.5, expected 0 without", [](P& p) { p.scale = 0.5f; }},
      {kInvalid, "scale", "got -1", scale(-1)},
      {kInvalid, "scale", "got inf", scale(std::numeric_limits<float>::infinity())},
      {kInvalid, "scale", "nan", scale(std::numeric_limits<float>::quiet_NaN())},
      {kUnsupported, "topk", "got 2048, expected 0 (dense", [](P& p) { p.topk = 2048; }},
      {kInvalid, "topk", "got -1", [](P& p) { p.topk = -1; }},
      {kUnsupported, "extra_kv_format", "got BF16_576", [](P& p) { p.extra_kv_format = FLASHMLA_KV_BF16_576; }},
      {kInvalid, "extra_kv_format", "got 50", [](P& p) { p.extra_kv_format = 50; }},
      {kUnsupported, "extra_topk", "got 4", [](P& p) { p.extra_topk = 4; }},
      {kInvalid, "extra_page_tokens", "got 64", [](P& p) { p.extra_page_tokens = 64; }},
      {kInvalid, "max_batch", "got 0", [](P& p) { p.max_batch = 0; }},
      {kInvalid, "max_batch", "got -1", [](P& p) { p.max_batch = -1; }},
      {kInvalid, "max_batch", "at most 2147483647", [](P& p) { p.max_batch = INT64_MAX; }},
      {kInvalid, "max_q_tokens", "got -2", [](P& p) { p.max_q_tokens = -2; }},
      {kInvalid, "max_q_tokens", "max_batch * max_q_tokens", [](P& p) { p.max_q_tokens = 1 << 30; }},
      {kInvalid, "max_kv_len", "got -1", [](P& p) { p.max_kv_len = -1; }},
      {kInvalid, "max_kv_len", "at most 2147483647", [](P& p) { p.max_kv_len = int64_t{1} << 31; }},
      {kInvalid, "max_total_kv_tokens", "got -9", [](P& p) { p.max_total_kv_tokens = -9; }},
  };
}

TEST(Problem, ChunksHaveADefaultByHeads) {
  flashmla_problem problem = good_problem();
  EXPECT_EQ(validate(problem).chunk_tokens, 0);
  problem.flags |= FLASHMLA_PROBLEM_BATCH_INVARIANT;
  for (auto const& [h_q, chunk] : {std::pair{1, 1024}, {32, 1024}, {33, 4096}, {128, 4096}}) {
    problem.h_q = h_q;
    EXPECT_EQ(validate(problem).chunk_tokens, chunk) << h_q;
  }
  problem.chunk_tokens = 512;
  EXPECT_EQ(validate(problem).chunk_tokens, 512);
}

TEST(Problem, BadValuesAreNamed) {
  for (BadProblem const& bad : bad_problems()) {
    flashmla_problem problem = good_problem();
    bad.spoil(problem);
    SCOPED_TRACE(std::string(bad.argument) + ": " + bad.fragment);
    expect_error({bad.status, "plan_create", bad.argument, bad.fragment}, [&] { validate(problem); });
  }
}

TEST(Problem, EveryFormatThatIsNotBuiltNamesThoseThatAre) {
  for (KvFormat const& format : kKvFormats) {
    if (format.built) continue;
    flashmla_problem problem = good_problem();
    problem.kv_format = format.id;
    expect_error({FLASHMLA_UNSUPPORTED, "plan_create", "kv_format", std::string("got ") + format.name}, [&] { validate(problem); });
  }
}

TEST(Problem, AStructOfALaterVersionIsAcceptedWhenItsNewFieldsAreZero) {
  struct {
    flashmla_problem problem;
    int64_t later;
  } grown{good_problem(), 0};
  grown.problem.struct_size = sizeof grown;
  EXPECT_EQ(validate(grown.problem).h_q, 16);
  grown.later = 1;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", "struct_size", "later version"}, [&] { validate(grown.problem); });
}

TEST(Target, MayBeOfTheFirstVersion) {
  flashmla_target target = good_target();
  target.num_threads = 3;
  target.struct_size = offsetof(flashmla_target, executor);
  target.executor = reinterpret_cast<flashmla_executor const*>(1);  // belongs to somebody else: not to be read
  EXPECT_EQ(validate(target).num_threads, 3);
  EXPECT_EQ(validate(target).executor.parallel_for, nullptr);
}

TEST(Target, KeepsTheExecutor) {
  flashmla_executor executor{};
  executor.struct_size = sizeof executor;
  executor.context = &executor;
  executor.parallel_for = [](void*, int32_t, flashmla_task, void*) {};
  flashmla_target target = good_target();
  target.executor = &executor;
  EXPECT_EQ(validate(target).executor.parallel_for, executor.parallel_for);
  EXPECT_EQ(validate(target).executor.context, &executor);
  executor.flags = 2;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", "executor.flags", "unknown flag 2"}, [&] { validate(target); });
  executor.flags = 0;
  executor.struct_size = 0;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", "struct_size", "flashmla_executor"}, [&] { validate(target); });
  executor.struct_size = sizeof executor;
  executor.parallel_for = nullptr;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", "executor.parallel_for", "got null"}, [&] { validate(target); });
  target.device.kind = FLASHMLA_CUDA;
  expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", "executor", "expected none"}, [&] { validate(target); });
}

struct BadTarget {
  char const* argument;
  flashmla_device_kind kind;
  std::function<void(flashmla_target&)> spoil;
};

TEST(Target, BadValuesAreNamed) {
  using T = flashmla_target;
  std::vector<BadTarget> const cases = {
      {"struct_size", FLASHMLA_CPU, [](T& t) { t.struct_size = 8; }},     {"target.flags", FLASHMLA_CPU, [](T& t) { t.flags = 1; }},
      {"target.reserved", FLASHMLA_CPU, [](T& t) { t.reserved = 1; }},    {"device.kind", FLASHMLA_CPU, [](T& t) { t.device.kind = 2; }},
      {"device.kind", FLASHMLA_CPU, [](T& t) { t.device.kind = -1; }},    {"device.index", FLASHMLA_CPU, [](T& t) { t.device.index = 1; }},
      {"device.index", FLASHMLA_CUDA, [](T& t) { t.device.index = -1; }}, {"isa", FLASHMLA_CPU, [](T& t) { t.isa = 17; }},
      {"isa", FLASHMLA_CUDA, [](T& t) { t.isa = FLASHMLA_ISA_AVX2; }},    {"num_threads", FLASHMLA_CPU, [](T& t) { t.num_threads = -1; }},
      {"num_threads", FLASHMLA_CUDA, [](T& t) { t.num_threads = 1; }},    {"num_sms", FLASHMLA_CPU, [](T& t) { t.num_sms = 1; }},
      {"num_sms", FLASHMLA_CUDA, [](T& t) { t.num_sms = -1; }},
  };
  for (BadTarget const& bad : cases) {
    flashmla_target target = good_target(bad.kind);
    EXPECT_EQ(validate(target).device.kind, bad.kind);
    bad.spoil(target);
    SCOPED_TRACE(bad.argument);
    expect_error({FLASHMLA_INVALID_ARGUMENT, "plan_create", bad.argument, ""}, [&] { validate(target); });
  }
}

}  // namespace
}  // namespace flashmla::core
