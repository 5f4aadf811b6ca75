// The picture of a replay: see replay_report.hpp.
#include <algorithm>

#include "tools/flashmla/chart.hpp"
#include "tools/flashmla/replay_report.hpp"
#include "tools/flashmla/statistics.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr char const* kBlue = "#0969da";
constexpr char const* kOrange = "#bc4c00";
constexpr char const* kGreen = "#1a7f37";
constexpr char const* kGrey = "#8c959f";
constexpr double kWidth = 1180, kHeight = 800;

template <typename Value>
std::vector<double> over_steps(ReplayResult const& result, Value value) {
  std::vector<double> values;
  for (StepRecord const& step : result.steps) values.push_back(value(step));
  return values;
}

LineChart batch_chart(ReplayResult const& result) {
  return {"Requests in the batch",
          "step",
          "requests",
          {{"running", kBlue, over_steps(result, [](StepRecord const& step) { return static_cast<double>(step.batch); }), true, false}}};
}

LineChart cache_chart(ReplayResult const& result) {
  double const token_gib = static_cast<double>(kTokenBytes) * result.shape.layers / kGib;
  auto const pages = [&](StepRecord const& step) { return static_cast<double>(step.pages * result.shape.page_tokens) * token_gib; };
  auto const padded = [&](StepRecord const& step) { return static_cast<double>(step.batch * step.longest) * token_gib; };
  auto const unshared = [&](StepRecord const& step) {
    return static_cast<double>(step.table_pages * result.shape.page_tokens) * token_gib;
  };
  double const budget = static_cast<double>(result.shape.num_pages * result.shape.page_tokens) * token_gib;
  return {"KV cache of all layers",
          "step",
          "GiB",
          {{"paged", kBlue, over_steps(result, pages), true, false},
           {"without sharing", kGreen, over_steps(result, unshared), false, false},
           {"padded to the longest of the batch", kOrange, over_steps(result, padded), false, false},
           {"page budget", kGrey, std::vector<double>(result.steps.size(), budget), false, true}}};
}

LineChart time_chart(ReplayResult const& result) {
  std::vector<double> times, floors;
  for (StepRecord const& step : result.steps) {
    times.push_back(step.seconds * 1e3);
    floors.push_back(1e3 * result.shape.layers *
                     floor_seconds(decode_work(step.batch, 1, step.kv_tokens, result.shape.heads), result.ceilings));
  }
  std::vector<double> const p99(result.steps.size(), percentile(times, 0.99));
  return {"Time per step",
          "step",
          "ms",
          {{"measured", kBlue, times, false, false}, {"floor", kGreen, floors, false, false}, {"p99", kGrey, p99, false, true}}};
}

std::vector<Bar> roofline(ReplayResult const& result) {
  double const seconds = std::max(result.decode_seconds(), 1e-12);
  Work const work = result.work();
  return {{"Reading the cache", work.bytes / seconds * 1e-9, result.ceilings.bytes_per_s * 1e-9, "GB/s", result.bandwidth_name, kBlue},
          {"Arithmetic", work.flop / seconds * 1e-12, result.ceilings.flop_per_s * 1e-12, "TFLOPS", result.rate_name, kOrange},
          {"Floor against the time measured", 1e3 * result.floor() / static_cast<double>(std::max<size_t>(1, result.steps.size())),
           1e3 * seconds / static_cast<double>(std::max<size_t>(1, result.steps.size())), "ms a step",
           "the time measured; the floor is max(FLOP / rate, bytes / bandwidth)", kGreen}};
}

}  // namespace

std::string replay_picture(ReplayResult const& result) {
  Svg svg(kWidth, kHeight);
  svg.text({30, 34}, "FlashMLA replay of " + result.trace_name.substr(result.trace_name.find_last_of('/') + 1),
           {20, "start", "#24292f", true});
  svg.text({30, 56},
           format("%s; %d heads, %d layers; %s tokens in %zu steps, %.0f tokens/s", result.device.c_str(), result.shape.heads,
                  result.shape.layers, format_count(result.counts.tokens).c_str(), result.steps.size(),
                  static_cast<double>(result.counts.tokens) / std::max(result.decode_seconds(), 1e-12)),
           {13, "start", "#57606a"});
  double const width = (kWidth - 60) / 2;
  draw(svg, {20, 84, width, 340}, batch_chart(result));
  draw(svg, {30 + width, 84, width, 340}, cache_chart(result));
  draw(svg, {20, 448, width, 340}, time_chart(result));
  draw(svg, {30 + width, 448, width, 228}, "Use of the device, whole run", roofline(result));
  CacheUse const use = cache_use(result);
  TextStyle const note{12, "start", "#57606a"};
  std::vector<std::string> const lines = {
      format("Mean cache: %s in pages, %s without sharing prefixes,", format_bytes(use.shared).c_str(), format_bytes(use.paged).c_str()),
      format("%s padded to the longest of the batch,", format_bytes(use.padded).c_str()),
      format("%s contiguous with %s tokens reserved for each request", format_bytes(use.contiguous).c_str(),
             format_count(result.shape.max_request_pages * result.shape.page_tokens).c_str()),
      format("Requests: %lld admitted, %lld finished, %lld preempted", static_cast<long long>(result.counts.admitted),
             static_cast<long long>(result.counts.finished), static_cast<long long>(result.counts.preempted)),
      format("%zu outputs checked against the reference: worst relative error %.2e", result.checks.size(), result.worst_error())};
  for (size_t i = 0; i < lines.size(); ++i) svg.text({92 + width, 704 + 20 * static_cast<double>(i)}, lines[i], note);
  return svg.str();
}

}  // namespace flashmla::tools
