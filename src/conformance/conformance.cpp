#include "conformance/conformance.hpp"

#include <cstdio>
#include <exception>
#include <map>
#include <memory>

#include "conformance/append_check.hpp"
#include "conformance/copy_pages_check.hpp"
#include "conformance/decode_check.hpp"
#include "conformance/invariance_check.hpp"
#include "conformance/merge_check.hpp"
#include "conformance/page_pool_check.hpp"
#include "core/kv_format.hpp"

namespace flashmla::conformance {
namespace {

bool selected(Options const& options, Check const& check) {
  if (options.dtype != FLASHMLA_DTYPE_NONE && check.dtype != options.dtype) return false;
  return check.name.find(options.name_filter) != std::string::npos;
}

/// A check ends in a verdict, whatever it throws: memory may run out, a device may be lost.
Outcome run_guarded(Check const& check, Bench const& bench) {
  try {
    return check.run(bench);
  } catch (std::exception const& e) {
    return failed(std::string("exception: ") + e.what());
  }
}

void raise(Worst& worst, std::string const& name, double value) {
  if (value > worst.value) worst = {name, value};
}

void add(Report& report, std::string const& name, Outcome const& outcome) {
  switch (outcome.status) {
    case Status::kPassed:
      ++report.passed;
      raise(report.out_l2, name, outcome.out_l2);
      raise(report.lse_abs, name, outcome.lse_abs);
      break;
    case Status::kFailed:
      ++report.failed;
      report.failures.push_back({name, outcome.text});
      break;
    case Status::kSkipped:
      ++report.skipped;
      report.skips.push_back({name, outcome.text});
      break;
  }
}

std::string error_line(char const* what, Worst const& worst) {
  char text[64];
  std::snprintf(text, sizeof text, "worst %s %.3g (", what, worst.value);
  return worst.name.empty() ? "" : text + worst.name + ")\n";
}

}  // namespace

std::vector<Check> checks(Tier tier) {
  std::vector<Check> all;
  for (DecodeCase& c : decode_cases(tier)) {
    std::string const name = "decode." + c.name;
    flashmla_dtype const dtype = core::find_kv_format(c.format)->dtype;
    all.push_back({name, dtype, [c = std::move(c)](Bench const& bench) { return check_decode(c, bench); }});
  }
  for (DecodeCase& c : invariance_cases(tier)) {
    std::string const name = "invariance." + c.name;
    flashmla_dtype const dtype = core::find_kv_format(c.format)->dtype;
    all.push_back({name, dtype, [c = std::move(c)](Bench const& bench) { return check_invariance(c, bench); }});
  }
  for (MergeCase const& c : merge_cases(tier))
    all.push_back({"merge." + c.name, c.partial_dtype, [c](Bench const& bench) { return check_merge(c, bench); }});
  for (AppendCase const& c : append_cases(tier))
    all.push_back({"append." + c.name, core::find_kv_format(c.format)->dtype, [c](Bench const& bench) { return check_append(c, bench); }});
  for (CopyPagesCase const& c : copy_pages_cases(tier))
    all.push_back({"copy_pages." + c.name, c.dtype, [c](Bench const& bench) { return check_copy_pages(c, bench); }});
  for (PagePoolCase const& c : page_pool_cases(tier))
    all.push_back({"page_pool." + c.name, FLASHMLA_DTYPE_NONE, [c](Bench const&) { return check_page_pool(c); }});
  return all;
}

Report run(Options const& options) {
  std::unique_ptr<DeviceMemory> const host_memory = options.memory ? nullptr : make_host_memory();
  std::unique_ptr<Oracle> const reference_oracle = options.oracle ? nullptr : make_reference_oracle();
  DeviceMemory& memory = options.memory ? *options.memory : *host_memory;
  flashmla_target target = options.target;
  target.struct_size = sizeof target;
  target.device = memory.device();
  Bench const bench{target, memory, options.oracle ? *options.oracle : *reference_oracle};

  std::vector<Check> chosen;
  int64_t matching = 0;
  for (Check& check : checks(options.tier))
    if (selected(options, check) && matching++ % options.every == 0) chosen.push_back(std::move(check));

  Report report;
  for (size_t i = 0; i < chosen.size(); ++i) {
    Outcome const outcome = run_guarded(chosen[i], bench);
    add(report, chosen[i].name, outcome);
    if (options.on_progress)
      options.on_progress({chosen[i].name, outcome, static_cast<int64_t>(i) + 1, static_cast<int64_t>(chosen.size())});
    if (options.stop_on_failure && outcome.status == Status::kFailed) break;
  }
  return report;
}

std::string Report::text() const {
  std::string all = std::to_string(passed) + " passed, " + std::to_string(failed) + " failed, " + std::to_string(skipped) + " skipped\n";
  all += error_line("relative L2 error of out", out_l2) + error_line("absolute error of lse", lse_abs);
  std::map<std::string, int64_t> reasons;
  for (Verdict const& skip : skips) ++reasons[skip.text];
  for (auto const& [reason, count] : reasons) all += "skipped " + std::to_string(count) + ": " + reason + "\n";
  for (Verdict const& failure : failures) all += "FAILED " + failure.name + ": " + failure.text + "\n";
  return all;
}

}  // namespace flashmla::conformance
