// The arithmetic of a plan: shapes, and what run hands to the kernels.
#include "cuda/decode_plan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "core/workspace.hpp"
#include "cuda/kernels/plan_schedule.hpp"

namespace flashmla::cuda {
namespace {

core::Problem some_problem() {
  core::Problem problem;
  problem.h_q = 20;
  problem.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  problem.scale = 0.5F;
  problem.causal = true;
  problem.max_kv_len = 4096;
  return problem;
}

TEST(PlanShape, workersFitTheMultiprocessors) {
  for (int32_t group = 1; group <= kMaxGroup; ++group)
    for (int32_t num_sms : {1, 2, 78, 114, 132, 1000}) {
      core::PlanShape const shape = plan_shape(group, num_sms);
      EXPECT_EQ(shape.tile_rows, kCtaRows * group);
      EXPECT_EQ(shape.tile_tokens, kTileTokens);
      EXPECT_GE(shape.max_workers, 1);
      EXPECT_LE(shape.max_workers, kMaxWorkers);
      EXPECT_TRUE(shape.max_workers == 1 || shape.max_workers * group <= num_sms);
      EXPECT_GT(shape.tile_cost, 0);
    }
}

TEST(ChooseGroup, coversTheRowsWithoutAWholeCtaToSpare) {
  for (int64_t rows = 1; rows <= 1024; ++rows) {
    int const group = choose_group(rows);
    ASSERT_GE(group, 1);
    ASSERT_LE(group, kMaxGroup);
    ASSERT_TRUE(group == 1 || rows > int64_t{kCtaRows} * (group - 1)) << rows;
  }
}

TEST(DecodeParams, unitsAndBuffers) {
  core::Problem problem = some_problem();
  core::PlanShape const shape = plan_shape(2, 132);
  alignas(256) static char workspace[16384], schedule[256];
  DenseDecodeParams const natural = decode_params(problem, shape, {}, {schedule, workspace});
  EXPECT_EQ(natural.heads, 20);
  EXPECT_EQ(natural.start.group, 2);
  EXPECT_EQ(natural.max_workers, 66);
  EXPECT_EQ(natural.causal, 1);
  EXPECT_FLOAT_EQ(natural.scale_log2, 0.5F * static_cast<float>(M_LOG2E));
  EXPECT_FLOAT_EQ(natural.lse_factor, static_cast<float>(M_LN2));
  EXPECT_EQ(natural.empty_lse, INFINITY);
  EXPECT_EQ(natural.start.schedule, schedule);
  EXPECT_EQ(natural.workspace, workspace);
  EXPECT_EQ(reinterpret_cast<char*>(natural.partial_rows), workspace + sizeof(core::WorkspaceHeader) + kExchangeFlagBytes);
  EXPECT_EQ(static_cast<char*>(natural.partial_values), workspace + partial_layout(shape, 512).values_offset);

  problem.lse_base = FLASHMLA_LSE_BASE_2;
  problem.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  problem.causal = false;
  DenseDecodeParams const binary = decode_params(problem, shape, {}, {schedule, workspace});
  EXPECT_EQ(binary.lse_factor, 1.0F);
  EXPECT_EQ(binary.empty_lse, -INFINITY);
  EXPECT_EQ(binary.causal, 0);
}

TEST(DecodeParams, rowsOfAKvHead) {
  core::Problem problem = some_problem();
  problem.h_kv = 2;
  problem.page_tokens = 16;
  core::DecodeCall call;
  call.q_tokens = 13;
  call.table_pages = 100;
  DenseDecodeParams const params = decode_params(problem, plan_shape(1, 132, 2), call, {});
  EXPECT_EQ(params.heads, 10);
  EXPECT_EQ(params.start.kv_heads, 2);
  EXPECT_EQ(params.start.num_rows, 130);
  EXPECT_EQ(params.start.num_row_tiles, 2 * 3);
  EXPECT_EQ(params.start.page_tokens, 16);
  EXPECT_EQ(params.start.length_limit, 1600);
  for (uint32_t row = 0; row < 130; ++row) EXPECT_EQ(uint64_t{row} * params.heads_inverse >> 32, row / 10) << row;
}

TEST(DecodeParams, ropeOfAFormat) {
  core::Problem problem = some_problem();
  for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_576, FLASHMLA_KV_BF16_320, FLASHMLA_KV_BF16_288}) {
    problem.format = core::find_kv_format(format);
    DenseDecodeParams const params = decode_params(problem, plan_shape(1, 132), {}, {});
    EXPECT_EQ(params.rope_columns, format == FLASHMLA_KV_BF16_288 ? 32 : 64);
  }
}

TEST(ChoosePaging, byWhatLiesInOnePage) {
  for (int32_t page : {64, 128, 192, 256, 1024}) EXPECT_EQ(choose_paging(page), Paging::kTiles) << page;
  for (int32_t page : {8, 16, 24, 32, 48, 80, 200}) EXPECT_EQ(choose_paging(page), Paging::kBoxes) << page;
  for (int32_t page : {1, 2, 4, 12, 63, 65, 100}) EXPECT_EQ(choose_paging(page), Paging::kRows) << page;
}

TEST(ChooseCalls, byItemsAndWorkers) {
  for (int64_t items : {int64_t{0}, int64_t{1}, int64_t{66}}) EXPECT_EQ(choose_calls(true, items, 132), Calls::kFew) << items;
  for (int64_t items : {int64_t{67}, int64_t{132}, int64_t{1} << 32}) EXPECT_EQ(choose_calls(true, items, 132), Calls::kMany) << items;
  EXPECT_EQ(choose_calls(true, 1, 1), Calls::kMany);
  for (int64_t items : {1, 1000}) EXPECT_EQ(choose_calls(false, items, 132), Calls::kAny) << items;
}

TEST(ChooseRoles, scoringInLongCallsOfManyRows) {
  for (Calls calls : {Calls::kMany, Calls::kAny})
    for (int32_t group : {2, 3, 4}) EXPECT_EQ(choose_roles({64, 1}, calls, 512, group, false), Roles::kScoring);
  EXPECT_EQ(choose_roles({64, 1}, Calls::kMany, 512, 1, false), Roles::kAlternating);
  EXPECT_EQ(choose_roles({64, 1}, Calls::kFew, 512, 2, false), Roles::kAlternating);
  EXPECT_EQ(choose_roles({64, 1}, Calls::kMany, 256, 2, false), Roles::kAlternating);
  for (int32_t page : {16, 32}) {
    EXPECT_EQ(choose_roles({page, 1}, Calls::kMany, 512, 2, false), Roles::kScoring) << page;
    EXPECT_EQ(choose_roles({page, 2}, Calls::kMany, 512, 2, false), Roles::kAlternating) << page;
    EXPECT_EQ(choose_roles({page, 1}, Calls::kFew, 512, 2, false), Roles::kAlternating) << page;
  }
  for (int32_t page : {1, 8, 24, 48}) EXPECT_EQ(choose_roles({page, 1}, Calls::kMany, 512, 2, false), Roles::kAlternating) << page;
}

TEST(ChooseRoles, transposedInShortAndRaggedCallsOfFewRows) {
  EXPECT_EQ(choose_roles({64, 1}, Calls::kMany, 512, 1, true), Roles::kAlternating);
  for (Calls calls : {Calls::kFew, Calls::kAny}) {
    EXPECT_EQ(choose_roles({64, 1}, calls, 512, 1, true), Roles::kTransposed);
    EXPECT_EQ(choose_roles({64, 1}, calls, 512, 1, false), Roles::kAlternating);
  }
  EXPECT_EQ(choose_roles({64, 1}, Calls::kFew, 256, 1, true), Roles::kAlternating);
  for (int32_t page : {1, 16, 32}) EXPECT_EQ(choose_roles({page, 1}, Calls::kFew, 512, 1, true), Roles::kAlternating) << page;
}

TEST(AreFewRows, upTo16OrTwoTilesOfFewRequests) {
  for (int64_t rows : {1, 15, 16}) EXPECT_TRUE(are_few_rows(rows, 1000)) << rows;
  for (int64_t rows : {17, 32}) {
    EXPECT_TRUE(are_few_rows(rows, 8)) << rows;
    EXPECT_FALSE(are_few_rows(rows, 9)) << rows;
  }
  EXPECT_FALSE(are_few_rows(33, 1));
}

TEST(CallShape, rowTilesOf16InShortCallsOfFewRows) {
  core::Problem problem = some_problem();
  problem.h_q = 16, problem.max_batch = 256, problem.max_q_tokens = 4;
  core::PlanShape const wide = plan_shape(1, 132);
  auto const tile_rows = [&](int32_t batch, int32_t q_tokens) { return call_shape(problem, wide, batch, q_tokens).tile_rows; };
  EXPECT_EQ(tile_rows(1, 1), 16);
  EXPECT_EQ(tile_rows(66, 1), 16);
  EXPECT_EQ(tile_rows(67, 1), 64) << "not a short call";
  EXPECT_EQ(tile_rows(8, 2), 16);
  EXPECT_EQ(tile_rows(9, 2), 64);
  EXPECT_EQ(tile_rows(1, 3), 64);
  EXPECT_EQ(tile_rows(1, 0), 64) << "ragged";
  core::PlanShape const few = call_shape(problem, wide, 8, 2);
  EXPECT_EQ(few.max_workers, wide.max_workers);
  core::DecodeCall call;
  call.batch = 8, call.q_tokens = 2;
  alignas(256) static char workspace[1024];
  DenseDecodeParams const params = decode_params(problem, few, call, {nullptr, workspace});
  EXPECT_EQ(params.start.group, 1);
  EXPECT_EQ(params.start.num_row_tiles, 2);
  EXPECT_EQ(params.cells, decode_params(problem, wide, call, {nullptr, workspace}).cells) << "cells lie in one place, cleared once";
  EXPECT_NE(params.cells, nullptr);
  problem.h_q = 64;
  EXPECT_EQ(decode_params(problem, wide, call, {nullptr, workspace}).cells, nullptr) << "no call has few rows";
  problem.h_q = 16, problem.h_kv = 2;  // 16 rows a KV head with two query tokens
  EXPECT_EQ(call_shape(problem, plan_shape(1, 132, 2), 32, 2).tile_rows, 16);
  problem.h_q = 9 * 20, problem.h_kv = 9;
  EXPECT_EQ(decode_params(problem, plan_shape(1, 132, 9), call, {nullptr, workspace}).cells, nullptr) << "18 row tiles a request";
  problem.h_q = 16, problem.h_kv = 1, problem.page_tokens = 16;
  EXPECT_EQ(tile_rows(1, 1), 64) << "pages are not whole tiles";
  problem.page_tokens = 64, problem.batch_invariant = true;
  EXPECT_EQ(tile_rows(1, 1), 64);
}

TEST(RunsInPairs, longCallsOfAnEvenNumberOfCtasInStep) {
  for (int32_t group : {2, 4}) EXPECT_TRUE(runs_in_pairs(false, group)) << group;
  for (int32_t group : {1, 3}) EXPECT_FALSE(runs_in_pairs(false, group)) << group;
  for (int32_t group : {1, 2, 3, 4}) EXPECT_FALSE(runs_in_pairs(true, group)) << group;
}

TEST(FetchesWide, allButWholeTilesOfSingleCtasAndOfScoringPairs) {
  for (Roles roles : {Roles::kAlternating, Roles::kScoring}) {
    EXPECT_FALSE(fetches_wide(Paging::kTiles, roles, false, 1));
    EXPECT_TRUE(fetches_wide(Paging::kTiles, roles, true, 4));
    for (Paging paging : {Paging::kBoxes, Paging::kRows}) EXPECT_EQ(fetches_wide(paging, roles, false, 1), roles != Roles::kScoring);
  }
  EXPECT_TRUE(fetches_wide(Paging::kTiles, Roles::kAlternating, true, 2));
  EXPECT_FALSE(fetches_wide(Paging::kTiles, Roles::kScoring, true, 2));
}

TEST(NumItems, countsRowTilesOfAllKvHeads) {
  DenseDecodeParams params{};
  params.start.batch = 3, params.start.q_tokens = 1, params.start.num_row_tiles = 4;
  EXPECT_EQ(num_items(params), 12);
  params.start.q_tokens = params.start.num_row_tiles = 0;  // ragged
  params.start.group = 2, params.start.kv_heads = 3, params.heads = 16, params.call.total_q = 9;
  EXPECT_EQ(num_items(params), 3 * 2);  // 144 rows of a KV head, 128 a row tile
  params.call.total_q = 0;
  EXPECT_EQ(num_items(params), 0);
}

TEST(PartialLayout, holdsTwoPartialResultsAWorker) {
  for (int32_t group = 1; group <= kMaxGroup; ++group) {
    core::PlanShape const shape = plan_shape(group, 132);
    PartialLayout const layout = partial_layout(shape, 512);
    size_t const rows = static_cast<size_t>(2 * shape.max_workers * kCtaRows * group);
    EXPECT_EQ(layout.values_offset - layout.rows_offset, rows * sizeof(PartialRow));
    EXPECT_EQ(layout.bytes - layout.values_offset, rows * 512 * 2);
    EXPECT_EQ(layout.rows_offset % 16, 0U);
    EXPECT_EQ(layout.values_offset % 16, 0U) << "partial results are read 16 bytes at a time";
    EXPECT_EQ(layout.bytes - partial_layout(shape, 256).bytes, rows * 256 * 2);
  }
  core::WorkspaceHeader const header{};
  EXPECT_GE(std::size(header.counters), 144U) << "a counter a CTA: Hopper has at most 144 multiprocessors";
}

}  // namespace
}  // namespace flashmla::cuda
