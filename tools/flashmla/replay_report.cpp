// What a replay found, as text and as JSON: see replay_report.hpp.
#include "tools/flashmla/replay_report.hpp"

#include <algorithm>
#include <cmath>

#include "tools/flashmla/row_check.hpp"
#include "tools/flashmla/statistics.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }
double saved_percent(double paged, double other) { return other > 0 ? 100 * (1 - paged / other) : 0; }

/// The numbers that text and JSON share.
struct Figures {
  double seconds, tokens_per_s, p50, p99, bytes_per_s, flop_per_s, floor_percent;
};

Figures figures_of(ReplayResult const& result) {
  double const seconds = std::max(result.decode_seconds(), 1e-12);
  auto const times = result.step_seconds();
  Work const work = result.work();
  return {seconds,
          static_cast<double>(result.counts.tokens) / seconds,
          percentile(times, 0.5),
          percentile(times, 0.99),
          work.bytes / seconds,
          work.flop / seconds,
          percent(result.floor(), seconds)};
}

std::string served_text(ReplayResult const& result) {
  ServingCounts const& counts = result.counts;
  std::string text =
      format("%s steps made %s tokens; %s requests admitted, %s finished, %s waiting at the end",
             format_count(static_cast<int64_t>(result.steps.size())).c_str(), format_count(counts.tokens).c_str(),
             format_count(counts.admitted).c_str(), format_count(counts.finished).c_str(), format_count(result.waiting).c_str());
  if (counts.preempted > 0) text += format("; %s preempted for want of pages", format_count(counts.preempted).c_str());
  if (counts.rejected > 0) text += format("; %s turned away: longer than the whole cache", format_count(counts.rejected).c_str());
  if (counts.empty > 0) text += format("; %s asked for no token", format_count(counts.empty).c_str());
  return text;
}

/// What pages of this size take against another way of keeping the cache; a few short requests may fill their last pages
/// badly enough to take more.
std::string against(double paged, double other) {
  if (paged > other) return format("paging takes %s more", format_bytes(paged - other).c_str());
  return format("paging saves %s, %.1f %%", format_bytes(other - paged).c_str(), saved_percent(paged, other));
}

std::string paging_text(ReplayResult const& result) {
  CacheUse const use = cache_use(result);
  return format("mean %s in pages%s; padded to the longest of the batch %s (%s); contiguous, %s tokens reserved each, %s (%s)",
                format_bytes(use.paged).c_str(), use.shared < use.paged ? " without sharing" : "", format_bytes(use.padded).c_str(),
                against(use.paged, use.padded).c_str(), format_count(result.shape.max_request_pages * result.shape.page_tokens).c_str(),
                format_bytes(use.contiguous).c_str(), against(use.paged, use.contiguous).c_str());
}

std::string sharing_text(ReplayResult const& result) {
  if (!result.trace_has_prefixes) return "none: the trace does not say which prompts begin alike";
  if (!result.share_prefixes) return "switched off";
  ServingCounts const& counts = result.counts;
  CacheUse const use = cache_use(result);
  SharingUse const saved = sharing_use(result);
  std::string text = format(
      "mean %s held, %s pages or %s less than without sharing (%.1f %%; at most %s pages, %s); %s of %s requests found the beginning of "
      "their prompt, %.1f %% of all prompt tokens",
      format_bytes(use.shared).c_str(), format_count(std::llround(saved.saved_pages_mean)).c_str(),
      format_bytes(saved.saved_bytes_mean).c_str(), saved_percent(use.shared, use.paged),
      format_count(std::llround(saved.saved_pages_most)).c_str(), format_bytes(saved.saved_bytes_most).c_str(),
      format_count(counts.with_prefix).c_str(), format_count(counts.admitted).c_str(),
      percent(static_cast<double>(counts.prefix_tokens), static_cast<double>(counts.prompt_tokens)));
  if (counts.copied_pages > 0) text += format("; %s pages copied", format_count(counts.copied_pages).c_str());
  return text + format("; mean %s pages of finished prompts kept until needed", format_count(std::llround(saved.kept_pages_mean)).c_str());
}

nlohmann::json cache_json(CacheUse const& use) {
  return {{"shared", use.shared / kGib}, {"paged", use.paged / kGib}, {"padded", use.padded / kGib}, {"contiguous", use.contiguous / kGib}};
}

nlohmann::json sharing_json(ReplayResult const& result) {
  SharingUse const saved = sharing_use(result);
  return {{"on", result.share_prefixes},
          {"trace_has_prefixes", result.trace_has_prefixes},
          {"requests_with_prefix", result.counts.with_prefix},
          {"prompt_tokens", result.counts.prompt_tokens},
          {"prefix_tokens", result.counts.prefix_tokens},
          {"copied_pages", result.counts.copied_pages},
          {"saved_pages_mean", saved.saved_pages_mean},
          {"saved_pages_most", saved.saved_pages_most},
          {"saved_bytes_mean", saved.saved_bytes_mean},
          {"saved_bytes_most", saved.saved_bytes_most},
          {"kept_pages_mean", saved.kept_pages_mean}};
}

std::string check_text(ReplayResult const& result) {
  if (result.checks.empty()) return "none asked for";
  double lse = 0;
  int64_t appended = 0;
  for (SpotCheck const& check : result.checks) {
    lse = std::max(lse, check.lse_error);
    appended += check.appended ? 1 : 0;
  }
  return format(
      "%s: %zu outputs against the fp64 reference, worst relative error %.2e (bound %.1e), lse %.0e; appended tokens found in %lld of %zu",
      result.checks_passed() ? "passed" : "FAILED", result.checks.size(), result.worst_error(),
      relative_error_bound(result.shape.type.dtype), lse, static_cast<long long>(appended), result.checks.size());
}

nlohmann::json steps_json(ReplayResult const& result) {
  nlohmann::json steps = {{"batch", nlohmann::json::array()},      {"waiting", nlohmann::json::array()},
                          {"kv_tokens", nlohmann::json::array()},  {"longest_tokens", nlohmann::json::array()},
                          {"pages", nlohmann::json::array()},      {"table_pages", nlohmann::json::array()},
                          {"kept_pages", nlohmann::json::array()}, {"seconds", nlohmann::json::array()}};
  for (StepRecord const& step : result.steps) {
    steps["batch"].push_back(step.batch);
    steps["waiting"].push_back(step.waiting);
    steps["kv_tokens"].push_back(step.kv_tokens);
    steps["longest_tokens"].push_back(step.longest);
    steps["pages"].push_back(step.pages);
    steps["table_pages"].push_back(step.table_pages);
    steps["kept_pages"].push_back(step.kept_pages);
    steps["seconds"].push_back(step.seconds);
  }
  return steps;
}

nlohmann::json checks_json(ReplayResult const& result) {
  nlohmann::json checks = nlohmann::json::array();
  for (SpotCheck const& check : result.checks) {
    checks.push_back({{"step", check.step},
                      {"layer", check.layer},
                      {"request", check.request},
                      {"kv_tokens", check.kv_tokens},
                      {"relative_error", check.relative_error},
                      {"lse_error", check.lse_error},
                      {"appended", check.appended}});
  }
  return checks;
}

}  // namespace

std::string replay_text(ReplayResult const& result) {
  Figures const f = figures_of(result);
  EngineShape const& shape = result.shape;
  Table table;
  table.column("replay", Table::Align::kLeft);
  table.column(format("%s (%s): %s requests", result.trace_name.c_str(), trace_format_name(result.trace_format),
                      format_count(result.trace_requests).c_str()),
               Table::Align::kLeft);
  table.row({"device", result.device});
  table.row({"kernel", result.kernel.substr(0, result.kernel.find('\n'))});
  table.row({"model", format("DeepSeek-V3 shape: %d of %d heads, %d of %d layers, %s", shape.heads, kModelHeads, shape.layers, kModelLayers,
                             dtype_name(shape.type))});
  table.row({"cache", format("%s pages of %d tokens a layer, %s in all layers; at most %lld requests at once",
                             format_count(shape.num_pages).c_str(), shape.page_tokens,
                             format_bytes(static_cast<double>(shape.num_pages * shape.page_tokens * kTokenBytes * shape.layers)).c_str(),
                             static_cast<long long>(shape.max_batch))});
  table.row({"served", served_text(result)});
  table.row({"speed", format("%.0f tokens/s; time per step p50 %s, p99 %s", f.tokens_per_s, format_seconds(f.p50).c_str(),
                             format_seconds(f.p99).c_str())});
  table.row({"achieved", format("%.3g of %.3g GB/s (%.0f %%; %s); %.3g of %.3g TFLOPS (%.0f %%; %s)", f.bytes_per_s * 1e-9,
                                result.ceilings.bytes_per_s * 1e-9, percent(f.bytes_per_s, result.ceilings.bytes_per_s),
                                result.bandwidth_name.c_str(), f.flop_per_s * 1e-12, result.ceilings.flop_per_s * 1e-12,
                                percent(f.flop_per_s, result.ceilings.flop_per_s), result.rate_name.c_str())});
  table.row({"floor", format("whole steps ran at %.0f %% of the floor, max(FLOP / rate, bytes / bandwidth); append and plan included",
                             f.floor_percent)});
  table.row({"paging", paging_text(result)});
  table.row({"sharing", sharing_text(result)});
  table.row({"check", check_text(result)});
  return table.str();
}

nlohmann::json replay_json(ReplayResult const& result) {
  Figures const f = figures_of(result);
  EngineShape const& shape = result.shape;
  ServingCounts const& counts = result.counts;
  return {{"trace", {{"name", result.trace_name}, {"format", trace_format_name(result.trace_format)}, {"requests", result.trace_requests}}},
          {"device", result.device},
          {"kernel", result.kernel},
          {"model", {{"heads", shape.heads}, {"layers", shape.layers}, {"dtype", dtype_name(shape.type)}}},
          {"cache",
           {{"pages", shape.num_pages},
            {"page_tokens", shape.page_tokens},
            {"max_batch", shape.max_batch},
            {"max_request_pages", shape.max_request_pages}}},
          {"served",
           {{"steps", result.steps.size()},
            {"tokens", counts.tokens},
            {"admitted", counts.admitted},
            {"finished", counts.finished},
            {"preempted", counts.preempted},
            {"rejected", counts.rejected},
            {"empty", counts.empty},
            {"waiting", result.waiting}}},
          {"decode_seconds", f.seconds},
          {"tokens_per_s", f.tokens_per_s},
          {"step_seconds_p50", f.p50},
          {"step_seconds_p99", f.p99},
          {"achieved", {{"bytes_per_s", f.bytes_per_s}, {"flop_per_s", f.flop_per_s}, {"percent_of_floor", f.floor_percent}}},
          {"ceilings",
           {{"bytes_per_s", result.ceilings.bytes_per_s},
            {"bytes_per_s_is", result.bandwidth_name},
            {"flop_per_s", result.ceilings.flop_per_s},
            {"flop_per_s_is", result.rate_name},
            {"flop_per_s_measured", result.rate_measured}}},
          {"sharing", sharing_json(result)},
          {"cache_gib_mean", cache_json(cache_use(result))},
          {"checks_passed", result.checks_passed()},
          {"worst_relative_error", result.worst_error()},
          {"checks", checks_json(result)},
          {"steps", steps_json(result)}};
}

}  // namespace flashmla::tools
