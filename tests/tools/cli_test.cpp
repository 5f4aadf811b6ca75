// The program from outside: exit codes, what goes to which stream, and what its JSON holds.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tools/xml_check.hpp"

namespace flashmla::tools {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

std::filesystem::path scratch(std::string const& name) {
  auto const* const test = testing::UnitTest::GetInstance()->current_test_info();
  auto const folder = std::filesystem::temp_directory_path() / (std::string("flashmla_cli_") + test->name());
  std::filesystem::create_directories(folder);
  return folder / name;
}

std::string contents(std::filesystem::path const& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

Outcome run(std::string const& arguments) {
  auto const out = scratch("out"), err = scratch("err");
  std::string const command = "'" FLASHMLA_CLI "' " + arguments + " >'" + out.string() + "' 2>'" + err.string() + "'";
  int const status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(out), contents(err)};
}

nlohmann::json json_of(std::string const& arguments) {
  Outcome const outcome = run(arguments + " --json");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "") << "progress belongs on a terminal only";
  return nlohmann::json::parse(outcome.out, nullptr, false);
}

void expect_usage_error(std::string const& arguments, std::string const& named) {
  Outcome const outcome = run(arguments);
  EXPECT_EQ(outcome.code, 2) << arguments;
  EXPECT_EQ(outcome.out, "") << arguments;
  auto const lines = std::count(outcome.err.begin(), outcome.err.end(), '\n');
  EXPECT_GE(lines, 1) << arguments;
  EXPECT_LE(lines, 3) << arguments;
  EXPECT_NE(outcome.err.find(named), std::string::npos) << outcome.err;
}

constexpr char const* kCommands[] = {"info", "kernels", "plan", "check", "bench", "replay"};

TEST(Cli, HelpOfEveryCommand) {
  Outcome const all = run("--help");
  EXPECT_EQ(all.code, 0);
  for (char const* const command : kCommands) {
    EXPECT_NE(all.out.find(command), std::string::npos) << command;
    Outcome const one = run(std::string(command) + " --help");
    EXPECT_EQ(one.code, 0);
    EXPECT_NE(one.out.find("--json"), std::string::npos) << command;
    EXPECT_EQ(one.err, "");
  }
}

TEST(Cli, Version) {
  Outcome const outcome = run("--version");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out.rfind("flashmla ", 0), 0u) << outcome.out;
}

TEST(Cli, BadArgumentsEndWithTwoAndNothingOnStandardOutput) {
  expect_usage_error("", "subcommand");
  expect_usage_error("frobnicate", "frobnicate");
  expect_usage_error("plan", "--kv");
  expect_usage_error("plan --kv 5,x", "got 'x'");
  expect_usage_error("plan --kv -5", "--kv");
  expect_usage_error("plan --kv 010", "got '010', expected a decimal without leading zeros");
  expect_usage_error("plan --kv 5 --heads 129", "129");
  expect_usage_error("plan --kv 5 --heads 0", "--heads");
  expect_usage_error("plan --kv 5 --backend tpu", "tpu");
  expect_usage_error("plan --kv 5 --isa sse", "sse");
  expect_usage_error("plan --kv 5 --dtype fp8", "fp8");
  expect_usage_error("plan --kv 5 --q 1,2", "--q: got 2 numbers, expected 1");
  expect_usage_error("plan --kv 5 --q -1", "--q");
  expect_usage_error("plan --kv 5 --q 2 --q-tokens 2", "--q-tokens");
  expect_usage_error("plan --kv 5,5 --q 2147483647,1 --backend cpu", "max_q_tokens");
  expect_usage_error("plan --kv 5 --threads 1.5", "1.5");
  expect_usage_error("plan --kv 5 --backend cuda --device 1000", "cuda:1000");
  expect_usage_error("info --frobnicate", "frobnicate");
  expect_usage_error("check --tier huge", "huge");
  expect_usage_error("check --filter no-such-check-at-all --backend cpu --isa portable", "no-such-check-at-all");
  expect_usage_error("bench --heads 0", "--heads");
  expect_usage_error("bench --dtype fp4 --kv 64", "fp4");
  expect_usage_error("bench --chunk 64 --kv 64", "--batch-invariant");
  expect_usage_error("bench --heads 400 --kv 64", "400");
  expect_usage_error("replay", "trace");
  expect_usage_error("replay /nowhere/trace.jsonl", "/nowhere/trace.jsonl");
  expect_usage_error("replay " FLASHMLA_DATA "/mooncake_conversation_cut.jsonl --pages 5 --memory 1", "--pages");
  expect_usage_error("replay " FLASHMLA_DATA "/mooncake_conversation_cut.jsonl --pages 5 --backend cpu", "--pages");
  expect_usage_error("replay " FLASHMLA_DATA "/mooncake_conversation_cut.jsonl --picture /nowhere/x.svg", "/nowhere/x.svg");
}

TEST(Cli, AMalformedTraceIsNamedByLine) {
  auto const trace = scratch("bad.jsonl");
  std::ofstream(trace) << "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}\n{oops\n";
  expect_usage_error("replay " + trace.string(), "bad.jsonl:2:");
}

TEST(Cli, InfoNamesDevicesAndKernels) {
  auto const info = json_of("info");
  ASSERT_TRUE(info.is_object());
  EXPECT_EQ(info["devices"][0]["device"], "cpu");
  EXPECT_FALSE(info["kernels"].empty());
  EXPECT_TRUE(info["cuda"].contains("driver_needed"));
  Outcome const text = run("info");
  EXPECT_EQ(text.code, 0);
  for (char const* const part : {"flashmla ", "build:", "CUDA:", "cpu"}) EXPECT_NE(text.out.find(part), std::string::npos) << part;
}

TEST(Cli, KernelsSayWhyNot) {
  auto const table = json_of("kernels");
  ASSERT_FALSE(table["kernels"].empty());
  for (auto const& row : table["kernels"]) EXPECT_NE(row["usable"].get<bool>(), !row["reason"].get<std::string>().empty()) << row.dump();
  EXPECT_EQ(run("kernels").code, 0);
}

/// What a person would check of the split in the manual, whatever the machine.
void expect_sound_split(std::string const& arguments, int64_t threads) {
  auto const plan = json_of("plan --backend cpu --kv 1000,70,4096,1 " + arguments);
  ASSERT_TRUE(plan.is_object());
  EXPECT_TRUE(plan["sound"].get<bool>()) << plan["defect"];
  EXPECT_LE(plan["workers"].get<int64_t>(), threads);
  std::vector<int64_t> const lengths = {1000, 70, 4096, 1};
  std::vector<std::map<int64_t, int64_t>> next(4);
  int64_t worker = 0, total = 0, tiles = 0;
  for (auto const& part : plan["parts"]) {
    EXPECT_GE(part["worker"].get<int64_t>(), worker) << "workers take consecutive parts";
    worker = part["worker"];
    int64_t& token = next[part["request"].get<size_t>()][part["row_tile"].get<int64_t>()];
    EXPECT_EQ(part["first_token"].get<int64_t>(), token);
    token = part["last_token"];
    total += part["last_token"].get<int64_t>() - part["first_token"].get<int64_t>();
    tiles = std::max(tiles, part["row_tile"].get<int64_t>() + 1);
  }
  for (size_t request = 0; request < 4; ++request)
    for (auto const& [tile, tokens] : next[request]) EXPECT_EQ(tokens, lengths[request]);
  EXPECT_EQ(total, 5167 * tiles);
  int64_t loads = 0;
  for (auto const& load : plan["loads"]) loads += load["tokens"].get<int64_t>();
  EXPECT_EQ(loads, total);
}

TEST(Cli, PlanSplitsEveryTokenOnce) {
  expect_sound_split("--threads 1", 1);
  expect_sound_split("--threads 2 --heads 16", 2);
  expect_sound_split("--threads 7 --q-tokens 3", 7);
  expect_sound_split("--threads 132", 132);
}

TEST(Cli, PlanOfRaggedQueries) {
  auto const plan = json_of("plan --backend cpu --threads 3 --heads 128 --kv 1000,70,4096,1 --q 1,5,1,0");
  EXPECT_TRUE(plan["sound"].get<bool>()) << plan["defect"];
  EXPECT_EQ(plan["q_tokens"], (std::vector<int32_t>{1, 5, 1, 0}));
  std::map<int64_t, int64_t> tokens;  // of each request, over its row tiles
  for (auto const& part : plan["parts"]) tokens[part["request"]] += part["last_token"].get<int64_t>() - part["first_token"].get<int64_t>();
  EXPECT_EQ(tokens[0], 1000);
  EXPECT_EQ(tokens[1], 3 * 70) << "640 rows in tiles of 214";
  EXPECT_EQ(tokens[2], 4096);
  EXPECT_EQ(tokens.count(3), 0u);
  EXPECT_TRUE(json_of("plan --backend cpu --kv 5,6 --q 0,0")["parts"].is_array());
  Outcome const nobody = run("plan --backend cpu --threads 3 --kv 5,6 --q 0,0");
  EXPECT_EQ(nobody.code, 0) << nobody.err;
  EXPECT_NE(nobody.out.find("query tokens 0 (0 to 0 a request)"), std::string::npos) << nobody.out;
}

TEST(Cli, PlanIsBalanced) {
  EXPECT_GE(json_of("plan --backend cpu --threads 2 --kv 1000,70,4096,1")["balance"].get<double>(), 0.95);
  Outcome const text = run("plan --backend cpu --threads 2 --kv 1000,70,4096,1");
  EXPECT_NE(text.out.find("every token of every row tile is covered exactly once"), std::string::npos);
  EXPECT_NE(text.out.find("[0, 1000)"), std::string::npos) << text.out;
}

TEST(Cli, CheckRunsAndSkipsByName) {
  auto const report = json_of("check --backend cpu --isa portable --filter page_pool");
  EXPECT_TRUE(report["ok"].get<bool>());
  ASSERT_EQ(report["targets"].size(), 1u);
  EXPECT_EQ(report["targets"][0]["target"], "cpu portable");
  EXPECT_GT(report["targets"][0]["passed"].get<int>(), 0);
  Outcome const cuda = run("check --backend cuda --filter page_pool");
  EXPECT_EQ(cuda.code, 0) << cuda.err;
  EXPECT_NE(cuda.out.find("cuda"), std::string::npos);
}

TEST(Cli, BenchReportsTimesCeilingsAndErrors) {
  auto const report = json_of("bench --backend cpu --threads 1 --heads 4,5 --kv 128 --rounds 1");
  ASSERT_EQ(report["rows"].size(), 2u);
  for (auto const& row : report["rows"]) {
    EXPECT_GT(row["seconds_median"].get<double>(), 0);
    EXPECT_GT(row["ceilings"]["bytes_per_s"].get<double>(), 0);
    EXPECT_TRUE(row["correct"].get<bool>());
  }
  auto const traced =
      json_of("bench --backend cpu --threads 1 --heads 4 --batch 3 --rounds 1 --lengths " FLASHMLA_DATA "/azure_2023_conv_cut.csv");
  EXPECT_EQ(traced["rows"][0]["lengths"].size(), 3u);
  EXPECT_TRUE(traced["rows"][0]["correct"].get<bool>());
  auto const short_keys = json_of("bench --backend cpu --threads 1 --heads 20 --kv 200 --rounds 1 --dtype bf16_320,bf16_288");
  ASSERT_EQ(short_keys["rows"].size(), 2u);
  EXPECT_EQ(short_keys["rows"][0]["dtype"], "bf16_320");
  for (auto const& row : short_keys["rows"]) EXPECT_TRUE(row["correct"].get<bool>()) << row.dump();
  auto const invariant =
      json_of("bench --backend cpu --threads 2 --heads 4 --kv 300 --rounds 1 --dtype bf16,fp32 --batch-invariant --chunk 64");
  ASSERT_EQ(invariant["rows"].size(), 2u);
  EXPECT_EQ(invariant["rows"][1]["dtype"], "fp32");
  EXPECT_LT(invariant["rows"][1]["relative_error"].get<double>(), 5e-6);
  for (auto const& row : invariant["rows"]) EXPECT_TRUE(row["correct"].get<bool>() && row["batch_invariant"].get<bool>());
}

TEST(Cli, ReplayServesTheShippedCuts) {
  auto const picture = scratch("replay.svg");
  std::string const sizes = " --backend cpu --threads 2 --heads 4 --layers 2 --steps 12 --max-batch 4 --checks 2";
  auto const mooncake =
      json_of("replay " FLASHMLA_DATA "/mooncake_conversation_cut.jsonl --pages 700 --picture " + picture.string() + sizes);
  EXPECT_EQ(mooncake["trace"]["format"], "mooncake");
  EXPECT_EQ(mooncake["trace"]["requests"], 400);
  EXPECT_EQ(mooncake["served"]["steps"], 12);
  EXPECT_TRUE(mooncake["checks_passed"].get<bool>());
  EXPECT_GT(mooncake["cache_gib_mean"]["padded"].get<double>(), mooncake["cache_gib_mean"]["paged"].get<double>());
  EXPECT_EQ(xml_defect(contents(picture)), "");
  for (char const* const name : {"azure_2023_conv_cut.csv", "azure_2023_code_cut.csv"}) {
    auto const azure = json_of("replay " FLASHMLA_DATA "/" + std::string(name) + " --pages 200" + sizes);
    EXPECT_EQ(azure["trace"]["format"], "azure");
    EXPECT_EQ(azure["trace"]["requests"], 300);
    EXPECT_TRUE(azure["checks_passed"].get<bool>());
  }
}

}  // namespace
}  // namespace flashmla::tools
