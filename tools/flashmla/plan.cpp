// flashmla plan: how the work of one step would be split, printed so that a person can check it.
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tools/flashmla/command.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/split_summary.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

struct PlanOptions {
  std::vector<int32_t> kv_len;
  int32_t heads = 128;
  int32_t q_tokens = 1;
  std::vector<int32_t> ragged_q_tokens;  // of each request; empty: q_tokens
  int32_t page_tokens = 64;
  std::string dtype = "bf16";
  bool batch_invariant = false;
  int32_t chunk_tokens = 0;
  BackendOptions backend;
  bool json = false;
};

int32_t most_q_tokens(PlanOptions const& options) {
  if (options.ragged_q_tokens.empty()) return options.q_tokens;
  return std::max(1, *std::max_element(options.ragged_q_tokens.begin(), options.ragged_q_tokens.end()));
}

Problem problem_of(PlanOptions const& options) {
  Problem problem = Problem::decode(options.heads, parse_dtype(options.dtype).format, static_cast<int64_t>(options.kv_len.size()));
  problem.page_tokens = options.page_tokens;
  problem.max_q_tokens = most_q_tokens(options);
  if (options.batch_invariant) {
    problem.set_batch_invariant(options.chunk_tokens);
    // A GPU keeps a place for every chunk.
    problem.max_kv_len = std::max(1, *std::max_element(options.kv_len.begin(), options.kv_len.end()));
  }
  return problem.set_causal();
}

std::vector<Part> parts_of(PlanOptions const& options, DecodePlan const& plan) {
  if (options.ragged_q_tokens.empty()) return plan.parts(options.kv_len, options.q_tokens);
  std::vector<int32_t> q_offsets = {0};  // the plan has bounded their sum
  for (int32_t const count : options.ragged_q_tokens) q_offsets.push_back(q_offsets.back() + count);
  return plan.parts(options.kv_len, q_offsets);
}

/// "1", or "7 (0 to 5 a request)".
std::string q_tokens_text(PlanOptions const& options) {
  auto const& each = options.ragged_q_tokens;
  if (each.empty()) return std::to_string(options.q_tokens);
  auto const [least, most] = std::minmax_element(each.begin(), each.end());
  return format("%lld (%d to %d a request)", static_cast<long long>(std::accumulate(each.begin(), each.end(), int64_t{0})), *least, *most);
}

nlohmann::json to_json(PlanOptions const& options, std::string const& kernel, std::vector<Part> const& parts, SplitSummary const& summary) {
  nlohmann::json out = {{"kv", options.kv_len},
                        {"heads", options.heads},
                        {"q_tokens", options.q_tokens},
                        {"kernel", kernel},
                        {"balance", summary.balance},
                        {"workers", summary.load_tokens.size()},
                        {"sound", summary.defect.empty()},
                        {"defect", summary.defect},
                        {"loads", nlohmann::json::array()},
                        {"parts", nlohmann::json::array()}};
  if (!options.ragged_q_tokens.empty()) out["q_tokens"] = options.ragged_q_tokens;
  for (auto const& [worker, load] : summary.load_tokens) out["loads"].push_back({{"worker", worker}, {"tokens", load}});
  for (auto const& part : parts) {
    out["parts"].push_back({{"worker", part.worker},
                            {"request", part.request},
                            {"row_tile", part.row_tile},
                            {"first_token", part.first_token},
                            {"last_token", part.last_token},
                            {"split", part.split},
                            {"num_splits", part.num_splits}});
  }
  return out;
}

std::string part_table(std::vector<Part> const& parts, SplitSummary const& summary) {
  Table table;
  for (char const* const title : {"worker", "load", "request", "row tile"}) table.column(title, Table::Align::kRight);
  table.column("tokens", Table::Align::kLeft);
  table.column("split", Table::Align::kLeft);
  int32_t worker = -1;
  for (auto const& part : parts) {
    bool const first = part.worker != worker;
    worker = part.worker;
    table.row({first ? std::to_string(worker) : "", first ? format_count(summary.load_tokens.at(worker)) : "", std::to_string(part.request),
               std::to_string(part.row_tile), format("[%d, %d)", part.first_token, part.last_token),
               format("%d of %d", part.split + 1, part.num_splits)});
  }
  return table.str();
}

int run_plan(PlanOptions const& options) {
  if (size_t const counts = options.ragged_q_tokens.size(); counts != 0 && counts != options.kv_len.size())
    throw UsageError(format("--q: got %zu numbers, expected %zu (one for each request of --kv)", counts, options.kv_len.size()));
  Target const target = parse_target(options.backend);
  DecodePlan const plan = DecodePlan::make(problem_of(options), target);
  auto const parts = parts_of(options, plan);
  SplitSummary const summary = summarise(parts, options.kv_len, options.ragged_q_tokens);
  if (options.json) {
    std::cout << to_json(options, plan.describe(), parts, summary).dump(2) << "\n";
  } else {
    int64_t tokens = 0;
    for (int32_t const length : options.kv_len) tokens += length;
    std::cout << format("requests %zu, tokens %s, heads %d, query tokens %s, row tiles a request %s%lld\n", options.kv_len.size(),
                        format_count(tokens).c_str(), options.heads, q_tokens_text(options).c_str(),
                        options.ragged_q_tokens.empty() ? "" : "at most ", static_cast<long long>(summary.row_tiles))
              << describe_target(target) << "\n"
              << plan.describe() << "\n\n"
              << part_table(parts, summary) << "\n"
              << format("load = tokens over all row tiles: mean %.1f, largest %s; balance (mean / largest) %.1f %%; items split: %lld\n",
                        summary.mean_tokens, format_count(summary.largest_tokens).c_str(), summary.balance * 100,
                        static_cast<long long>(summary.split_items))
              << (summary.defect.empty() ? "every token of every row tile is covered exactly once" : "NOT SOUND: " + summary.defect)
              << "\n";
  }
  return summary.defect.empty() ? kExitOk : kExitFailure;
}

}  // namespace

void add_plan(CLI::App& app, Action& chosen) {
  CLI::App* const command = app.add_subcommand("plan", "How the work of one step would be split over the workers");
  auto const options = std::make_shared<PlanOptions>();
  command->add_option("--kv", options->kv_len, "tokens in the cache of each request, e.g. 1000,70,4096,1")
      ->required()
      ->delimiter(',')
      ->check(whole_number(0, 2147483647));
  command->add_option("--heads", options->heads, "query heads, 1 to 128")->check(whole_number(1, 2147483647))->capture_default_str();
  auto* const uniform = command->add_option("--q-tokens", options->q_tokens, "query tokens a request")
                            ->check(whole_number(1, 2147483647))
                            ->capture_default_str();
  command->add_option("--q", options->ragged_q_tokens, "query tokens of each request, none too: ragged, e.g. 1,5,1,0")
      ->delimiter(',')
      ->check(whole_number(0, 2147483647))
      ->excludes(uniform);
  command->add_option("--page", options->page_tokens, "tokens a page")->check(whole_number(1, 2147483647))->capture_default_str();
  command->add_option("--dtype", options->dtype, "bf16, fp16, bf16_320, bf16_288, or on the CPU fp32")->capture_default_str();
  auto* const invariant = command->add_flag("--batch-invariant", options->batch_invariant, "bits that do not depend on batch mates");
  command->add_option("--chunk", options->chunk_tokens, "tokens a chunk with --batch-invariant, a multiple of 64; 0: the library's choice")
      ->check(whole_number(0, 2147483647))
      ->needs(invariant);
  add_backend_options(*command, options->backend);
  add_json_flag(*command, options->json);
  command->callback([&chosen, options] { chosen = [options] { return run_plan(*options); }; });
}

}  // namespace flashmla::tools
