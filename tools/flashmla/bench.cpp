// flashmla bench: how fast decode attention is here, as time and as a part of what this machine can do at most.
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/flashmla/bench_run.hpp"
#include "tools/flashmla/command.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/progress.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

struct BenchOptions {
  BenchAxes axes{{16, 128}, {1}, {4096}, {1}, {64}, {}};
  std::vector<std::string> dtypes = {"bf16"};
  std::string lengths;  // a trace; takes the place of the kv axis
  int64_t rounds = 9;
  bool batch_invariant = false;
  int32_t chunk_tokens = 0;
  BackendOptions backend;
  bool json = false;
};

/// A shape and what became of it.
struct Row {
  BenchCase shape;
  std::optional<BenchResult> result;
  std::string unsupported;  // the library's words
};

nlohmann::json to_json(Row const& row) {
  BenchCase const& shape = row.shape;
  nlohmann::json out = {{"heads", shape.heads},       {"batch", shape.batch},      {"kv", shape.kv_tokens},
                        {"q_tokens", shape.q_tokens}, {"page", shape.page_tokens}, {"dtype", dtype_name(shape.type)}};
  if (shape.batch_invariant) out["batch_invariant"] = true;
  if (!shape.lengths.empty()) out["lengths"] = shape.lengths;
  if (!row.result) {
    out["unsupported"] = row.unsupported;
    return out;
  }
  BenchResult const& result = *row.result;
  out["kernel"] = result.kernel;
  out["seconds_median"] = result.median_seconds();
  out["seconds_best"] = result.best_seconds();
  out["bytes_per_s"] = result.work.bytes / result.median_seconds();
  out["flop_per_s"] = result.work.flop / result.median_seconds();
  out["fraction_of_floor"] = result.fraction_of_floor();
  out["fraction_of_floor_best"] = result.best_fraction_of_floor();
  out["ceilings"] = {{"bytes_per_s", result.ceilings.bytes_per_s},
                     {"bytes_per_s_is", result.bandwidth_name},
                     {"flop_per_s", result.ceilings.flop_per_s},
                     {"flop_per_s_is", result.rate_name}};
  out["rounds"] = result.rounds.size();
  out["disturbed_rounds"] = result.disturbed;
  out["relative_error"] = result.error.relative;
  out["lse_error"] = result.error.lse;
  out["correct"] = result.correct();
  return out;
}

std::string part_of(double value, double ceiling, double unit) { return format("%.3g (%.0f %%)", value / unit, 100 * value / ceiling); }

/// With different lengths their mean and the longest.
std::string kv_column(BenchCase const& shape) {
  if (shape.lengths.empty()) return std::to_string(shape.kv_tokens);
  return format("%lld, to %d", static_cast<long long>(shape.total_tokens() / shape.batch), shape.kv_tokens);
}

void print_text(std::vector<Row> const& rows, Target const& target) {
  Table table;
  for (char const* const title : {"heads", "batch", "kv", "q", "page"}) table.column(title, Table::Align::kRight);
  table.column("dtype", Table::Align::kLeft);
  for (char const* const title : {"median", "best", "GB/s", "TFLOPS", "of floor", "error", "rounds"})
    table.column(title, Table::Align::kRight);
  table.column("note", Table::Align::kLeft);
  BenchResult const* last = nullptr;
  for (Row const& row : rows) {
    BenchCase const& shape = row.shape;
    std::vector<std::string> cells = {std::to_string(shape.heads),    std::to_string(shape.batch),       kv_column(shape),
                                      std::to_string(shape.q_tokens), std::to_string(shape.page_tokens), dtype_name(shape.type)};
    if (row.result) {
      BenchResult const& result = *row.result;
      last = &result;
      double const seconds = result.median_seconds();
      for (std::string const& cell : {format_seconds(seconds), format_seconds(result.best_seconds()),
                                      part_of(result.work.bytes / seconds, result.ceilings.bytes_per_s, 1e9),
                                      part_of(result.work.flop / seconds, result.ceilings.flop_per_s, 1e12),
                                      format("%.0f %%, %.0f %%", 100 * result.fraction_of_floor(), 100 * result.best_fraction_of_floor()),
                                      format("%.1e", result.error.relative), std::to_string(result.rounds.size())})
        cells.push_back(cell);
      std::string note = result.correct() ? "" : format("WRONG: relative error beyond %.1e", relative_error_bound(shape.type.dtype));
      if (result.disturbed > 0)
        note += format("%s%lld disturbed rounds left out", note.empty() ? "" : "; ", static_cast<long long>(result.disturbed));
      cells.push_back(note);
    } else {
      cells.insert(cells.end(), {"-", "-", "-", "-", "-", "-", "-", "skipped: " + row.unsupported});
    }
    table.row(cells);
  }
  std::cout << describe_target(target) << "\n" << table.str();
  if (last == nullptr) return;
  std::cout
      << format("ceilings of the last row: %.3g GB/s (%s), %.3g TFLOPS (%s)\n", last->ceilings.bytes_per_s * 1e-9,
                last->bandwidth_name.c_str(), last->ceilings.flop_per_s * 1e-12, last->rate_name.c_str())
      << "of floor: max(FLOP / rate, bytes / bandwidth) over the time: median by each round's own ceilings, then best by the best ones\n";
}

/// The row of a shape; rethrows what is not a matter of support.
Row measure(BenchCase const& shape, BenchOptions const& options, Target const& target, DeviceContext& device) {
  Progress bar(format("h%d b%d kv%d q%d", shape.heads, shape.batch, shape.kv_tokens, shape.q_tokens));
  try {
    auto const on_round = [&](int64_t done) { bar.update(static_cast<double>(done) / static_cast<double>(options.rounds)); };
    return {shape, run_bench(shape, target, device, options.rounds, on_round), ""};
  } catch (Error const& error) {
    if (error.status() != FLASHMLA_UNSUPPORTED) throw;
    return {shape, std::nullopt, error.what()};
  }
}

int run(BenchOptions const& options) {
  Target const target = parse_target(options.backend);
  BenchAxes axes = options.axes;
  for (std::string const& name : options.dtypes) axes.types.push_back(parse_dtype(name));
  auto const device = target.device.kind == FLASHMLA_CUDA ? open_cuda_device(target.device.index) : open_host_device();
  std::optional<Trace> const trace = options.lengths.empty() ? std::nullopt : std::optional(read_trace_file(options.lengths));
  if (trace) axes.kv_tokens = {0};
  std::vector<Row> rows;
  bool any = false, correct = true;
  for (BenchCase& shape : combinations(axes)) {
    if (trace) {
      shape.lengths = trace_lengths(*trace, shape.batch);
      shape.kv_tokens = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    }
    shape.batch_invariant = options.batch_invariant;
    shape.chunk_tokens = options.chunk_tokens;
    rows.push_back(measure(shape, options, target, *device));
    any = any || rows.back().result;
    correct = correct && (!rows.back().result || rows.back().result->correct());
  }
  if (!any) throw UsageError(rows.front().unsupported);
  if (options.json) {
    nlohmann::json out = {{"device", describe_target(target)}, {"rows", nlohmann::json::array()}};
    for (Row const& row : rows) out["rows"].push_back(to_json(row));
    std::cout << out.dump(2) << "\n";
  } else {
    print_text(rows, target);
  }
  return correct ? kExitOk : kExitFailure;
}

}  // namespace

void add_bench(CLI::App& app, Action& chosen) {
  CLI::App* const command =
      app.add_subcommand("bench", "Time decode attention against ceilings measured in the same run; every combination of the axes");
  auto const options = std::make_shared<BenchOptions>();
  auto const axis = [&](char const* name, std::vector<int32_t>& values, char const* help) {
    return command->add_option(name, values, help)->delimiter(',')->check(whole_number(1, 2147483647))->capture_default_str();
  };
  axis("--heads", options->axes.heads, "query heads, e.g. 16,128");
  axis("--batch", options->axes.batch, "requests");
  auto* const kv = axis("--kv", options->axes.kv_tokens, "tokens in the cache of each request");
  command->add_option("--lengths", options->lengths, "a trace (see data/): lengths of requests spread evenly over it, in place of --kv")
      ->excludes(kv);
  axis("--q-tokens", options->axes.q_tokens, "query tokens of each request");
  axis("--page", options->axes.page_tokens, "tokens a page");
  command->add_option("--dtype", options->dtypes, "bf16, fp16, bf16_320, bf16_288, or on the CPU fp32")
      ->delimiter(',')
      ->capture_default_str();
  auto* const invariant = command->add_flag("--batch-invariant", options->batch_invariant, "bits that do not depend on batch mates");
  command->add_option("--chunk", options->chunk_tokens, "tokens a chunk with --batch-invariant, a multiple of 64; 0: the library's choice")
      ->check(whole_number(0, 2147483647))
      ->needs(invariant);
  command->add_option("--rounds", options->rounds, "rounds to keep")->check(whole_number(1, 1000))->capture_default_str();
  add_backend_options(*command, options->backend);
  add_json_flag(*command, options->json);
  command->callback([&chosen, options] { chosen = [options] { return run(*options); }; });
}

}  // namespace flashmla::tools
