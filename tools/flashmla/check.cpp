// flashmla check: the conformance suite on this machine, on every backend and instruction set that it has.
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conformance/conformance.hpp"
#include "tools/flashmla/command.hpp"
#include "tools/flashmla/device.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/progress.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

struct CheckOptions {
  std::string tier = "smoke";
  std::string backend = "all";
  std::string isa = "all";
  std::string filter;
  int threads = 0;
  bool json = false;
};

/// One target of this machine: checked, or skipped for a reason.
struct Row {
  std::string name;
  Target target;
  std::string skipped;  // why, else empty
  conformance::Report report;
};

conformance::Tier parse_tier(std::string const& name) {
  if (name == "smoke") return conformance::Tier::kSmoke;
  if (name == "ci") return conformance::Tier::kCi;
  if (name == "full") return conformance::Tier::kFull;
  throw UsageError("--tier: got '" + name + "', expected smoke, ci or full");
}

/// The CPU once for each instruction set of the kernel table, the portable one first.
std::vector<Row> cpu_rows(CheckOptions const& options) {
  std::map<int32_t, Row> by_isa;
  for (KernelInfo const& info : kernels()) {
    if (info.device_kind != FLASHMLA_CPU) continue;
    if (options.isa != "all" && options.isa != isa_name(info.isa)) continue;
    Row& row = by_isa[info.isa];
    row.name = std::string("cpu ") + isa_name(info.isa);
    row.target.isa = info.isa;
    row.target.num_threads = options.threads;
    if (info.usable == 0) row.skipped = info.reason;
  }
  std::vector<Row> rows;
  for (auto& [isa, row] : by_isa) rows.push_back(std::move(row));
  return rows;
}

std::vector<Row> cuda_rows() {
  std::vector<Row> rows;
  for (DeviceInfo const& info : devices()) {
    if (info.device.kind != FLASHMLA_CUDA) continue;
    rows.push_back({device_name(info.device) + " " + info.name, Target(info.device), info.usable != 0 ? "" : info.reason, {}});
  }
  if (rows.empty()) {
    DriverInfo const found = driver();
    rows.push_back(
        {"cuda", Target(cuda_device(0)), found.built == 0 ? "left out of this build" : std::string("no device: ") + found.reason, {}});
  }
  return rows;
}

std::vector<Row> rows_of(CheckOptions const& options) {
  if (options.backend != "all" && options.backend != "cpu" && options.backend != "cuda")
    throw UsageError("--backend: got '" + options.backend + "', expected all, cpu or cuda");
  if (options.isa != "all") static_cast<void>(parse_isa(options.isa));  // throws for a word that is none
  std::vector<Row> rows;
  if (options.backend != "cuda") rows = cpu_rows(options);
  if (options.backend != "cpu")
    for (Row& row : cuda_rows()) rows.push_back(std::move(row));
  return rows;
}

void run_row(Row& row, CheckOptions const& options) {
  std::unique_ptr<DeviceContext> const memory =
      row.target.device.kind == FLASHMLA_CUDA ? open_cuda_device(row.target.device.index) : open_host_device();
  Progress bar(row.name);
  conformance::Options run;
  run.tier = parse_tier(options.tier);
  run.target = row.target;
  run.memory = memory.get();
  run.name_filter = options.filter;
  run.on_progress = [&](conformance::Progress const& progress) {
    bar.update(static_cast<double>(progress.done) / static_cast<double>(progress.total), progress.name);
  };
  row.report = conformance::run(run);
}

nlohmann::json verdicts(std::vector<conformance::Verdict> const& list) {
  nlohmann::json out = nlohmann::json::array();
  for (auto const& verdict : list) out.push_back({{"name", verdict.name}, {"text", verdict.text}});
  return out;
}

nlohmann::json to_json(Row const& row) {
  return {{"target", row.name},
          {"skipped_because", row.skipped},
          {"passed", row.report.passed},
          {"failed", row.report.failed},
          {"skipped", row.report.skipped},
          {"worst_out_relative_error", row.report.out_l2.value},
          {"worst_lse_error", row.report.lse_abs.value},
          {"failures", verdicts(row.report.failures)},
          {"skips", verdicts(row.report.skips)}};
}

void print_text(std::vector<Row> const& rows) {
  constexpr size_t kShownFailures = 20;
  Table table;
  table.column("target", Table::Align::kLeft);
  for (char const* const title : {"passed", "failed", "skipped", "worst out", "worst lse"}) table.column(title, Table::Align::kRight);
  table.column("note", Table::Align::kLeft);
  for (Row const& row : rows) {
    if (!row.skipped.empty()) {
      table.row({row.name, "-", "-", "all", "-", "-", "skipped: " + row.skipped});
      continue;
    }
    auto const& report = row.report;
    table.row({row.name, std::to_string(report.passed), std::to_string(report.failed), std::to_string(report.skipped),
               format("%.2e", report.out_l2.value), format("%.2e", report.lse_abs.value), report.failed == 0 ? "" : "FAILED"});
  }
  std::cout << table.str();
  for (Row const& row : rows) {
    std::map<std::string, int64_t> reasons;
    for (auto const& skip : row.report.skips) ++reasons[skip.text];
    for (auto const& [reason, count] : reasons) std::cout << row.name << ": skipped " << count << ": " << reason << "\n";
    for (size_t i = 0; i < row.report.failures.size() && i < kShownFailures; ++i)
      std::cout << row.name << ": FAILED " << row.report.failures[i].name << ": " << row.report.failures[i].text << "\n";
  }
}

int run_check(CheckOptions const& options) {
  parse_tier(options.tier);
  std::vector<Row> rows = rows_of(options);
  int64_t judged = 0, failed = 0;
  bool any_target = false;
  for (Row& row : rows) {
    if (!row.skipped.empty()) continue;
    any_target = true;
    run_row(row, options);
    judged += row.report.passed + row.report.failed + row.report.skipped;
    failed += row.report.failed;
  }
  if (any_target && judged == 0) throw UsageError("--filter: got '" + options.filter + "', expected a part of the name of some check");
  if (options.json) {
    nlohmann::json out = {{"tier", options.tier}, {"ok", failed == 0}, {"targets", nlohmann::json::array()}};
    for (Row const& row : rows) out["targets"].push_back(to_json(row));
    std::cout << out.dump(2) << "\n";
  } else {
    print_text(rows);
  }
  return failed == 0 ? kExitOk : kExitFailure;
}

}  // namespace

void add_check(CLI::App& app, Action& chosen) {
  CLI::App* const command =
      app.add_subcommand("check", "Conformance on this machine: every usable backend and instruction set against the reference");
  auto const options = std::make_shared<CheckOptions>();
  command->add_option("--tier", options->tier, "smoke (seconds), ci (minutes) or full")->capture_default_str();
  command->add_option("--backend", options->backend, "all, cpu or cuda")->capture_default_str();
  command->add_option("--isa", options->isa, "CPU: all, or one that `flashmla kernels` lists")->capture_default_str();
  command->add_option("--threads", options->threads, "CPU: threads; 0 takes every core this process may use")
      ->check(whole_number(0, 4096))
      ->capture_default_str();
  command->add_option("--filter", options->filter, "only checks whose name contains this");
  add_json_flag(*command, options->json);
  command->callback([&chosen, options] { chosen = [options] { return run_check(*options); }; });
}

}  // namespace flashmla::tools
