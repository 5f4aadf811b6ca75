// Replay of a trace: see replay_run.hpp.
#include "tools/flashmla/replay_run.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "conformance/random.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/row_check.hpp"
#include "tools/flashmla/statistics.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int32_t kCheckedHeads = 4;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// What the options and this device leave open.
struct Defaults {
  double memory_gib;
  int64_t max_batch;
  int32_t layers, heads;
  int64_t steps;
  double seconds;
};

/// On a CPU the demo is one of eight tensor-parallel ranks of the model, 16 heads, and a few of its layers; on a GPU it
/// is the whole model with data-parallel attention, in most of the memory.
Defaults defaults_for(bool demo, bool cuda, double free_gib) {
  if (cuda) return {free_gib * 0.85, 256, kModelLayers, kModelHeads, demo ? 600 : 256, demo ? 40.0 : 0.0};
  if (demo) return {1.25, 64, 2, 16, 600, 40.0};
  return {std::min(4.0, free_gib / 2), 64, 4, kModelHeads, 256, 0.0};
}

/// A demo on a slow machine gets fewer pages, so that its steps stay short enough to see some.
int64_t demo_pages(EngineShape const& shape, Ceilings const& ceilings) {
  constexpr double kStepSeconds = 0.15;
  constexpr double kFewestPages = 512;
  double const token_seconds = shape.layers * floor_seconds(decode_work(0, 1, 1, shape.heads), ceilings);
  return static_cast<int64_t>(std::max(kFewestPages, kStepSeconds / token_seconds / shape.page_tokens));
}

/// The loop and what it observes.
class Replay {
 public:
  Replay(ReplayOptions const& options, ReplayProgress const& progress)
      : options_(options),
        progress_(progress),
        trace_(read_trace_file(options.trace)),
        target_(parse_target(options.backend)),
        device_(target_.device.kind == FLASHMLA_CUDA ? open_cuda_device(target_.device.index) : open_host_device()),
        probe_(*device_, target_, parse_16_bit_dtype(options.dtype).dtype),
        random_(options.seed) {}

  ReplayResult run() {
    for (int i = 0; i < 3; ++i) probe_.sample();  // the demo's size hangs on them, and one may fall into a bad moment
    sizes_ = choose_sizes(options_, *device_, probe_.best());
    ServingLoop loop(trace_.requests, {sizes_.shape.num_pages, sizes_.shape.page_tokens, sizes_.shape.max_batch, options_.share_prefixes});
    if (loop.finished()) {
      throw UsageError(format("replay: --pages: got %lld, expected enough for at least one of the %zu requests of the trace",
                              static_cast<long long>(sizes_.shape.num_pages), trace_.requests.size()));
    }
    sizes_.shape.max_request_pages = loop.max_request_pages();
    DecodeEngine engine(sizes_.shape, target_, *device_, [&](double fraction) { progress_("fill", fraction, ""); });
    decode(loop, engine);
    probe_.sample();
    return finish(loop, engine);
  }

 private:
  void decode(ServingLoop& loop, DecodeEngine& engine) {
    auto const begin = Clock::now();
    double clock_s = options_.time_scale > 0 ? 0 : std::numeric_limits<double>::infinity();
    while (!loop.finished() && static_cast<int64_t>(result_.steps.size()) < sizes_.steps && !out_of_time(begin)) {
      std::vector<Running> const& batch = loop.begin_step(clock_s);
      if (batch.empty()) {
        clock_s = std::max(clock_s, loop.next_arrival_s());  // an idle engine waits for the next request
        continue;
      }
      double const seconds = step(loop, batch, engine);
      clock_s += seconds * options_.time_scale;
      check_when_due(batch, engine, fraction_done(loop, begin));
      loop.end_step();
      report(loop, begin);
    }
  }

  double step(ServingLoop const& loop, std::vector<Running> const& batch, DecodeEngine& engine) {
    auto const index = static_cast<int64_t>(result_.steps.size());
    auto const watched = static_cast<int32_t>(index % sizes_.shape.layers);
    if (index == 0) engine.step(batch, index, watched);  // wakes threads and clocks; doing a step twice changes nothing
    auto const begin = Clock::now();
    engine.copy_pages(loop.copies());
    engine.step(batch, index, watched);
    StepRecord record{
        static_cast<int64_t>(batch.size()), loop.waiting(), 0, 0, loop.pages_in_use(), 0, loop.pages_kept(), seconds_since(begin)};
    for (Running const& request : batch) {
      record.kv_tokens += request.kv_tokens;
      record.table_pages += static_cast<int64_t>(request.pages.size());
      record.longest = std::max(record.longest, request.kv_tokens);
    }
    result_.steps.push_back(record);
    return record.seconds;
  }

  /// Spot checks are spread evenly over what is going to be done, the first of them in the first step.
  void check_when_due(std::vector<Running> const& batch, DecodeEngine& engine, double fraction) {
    auto const done = static_cast<double>(result_.checks.size());
    if (done >= static_cast<double>(options_.checks) || fraction < done / static_cast<double>(options_.checks)) return;
    auto const row = static_cast<size_t>(random_.below(static_cast<int64_t>(batch.size())));
    result_.checks.push_back(engine.spot_check(batch, row, kCheckedHeads));
    probe_.sample();
  }

  [[nodiscard]] bool out_of_time(Clock::time_point begin) const { return sizes_.seconds > 0 && seconds_since(begin) >= sizes_.seconds; }

  [[nodiscard]] double fraction_done(ServingLoop const& loop, Clock::time_point begin) const {
    double const by_steps = static_cast<double>(result_.steps.size()) / static_cast<double>(sizes_.steps);
    double const by_time = sizes_.seconds > 0 ? seconds_since(begin) / sizes_.seconds : 0;
    double const served = static_cast<double>(loop.counts().tokens) / static_cast<double>(loop.all_tokens());
    return std::max({by_steps, by_time, served});
  }

  void report(ServingLoop const& loop, Clock::time_point begin) const {
    StepRecord const& last = result_.steps.back();
    progress_("decode", fraction_done(loop, begin),
              format("step %zu: %lld requests, %s", result_.steps.size(), static_cast<long long>(last.batch),
                     format_seconds(last.seconds).c_str()));
  }

  ReplayResult finish(ServingLoop const& loop, DecodeEngine const& engine) {
    result_.trace_name = options_.trace;
    result_.trace_format = trace_.format;
    result_.trace_requests = static_cast<int64_t>(trace_.requests.size());
    result_.trace_has_prefixes = trace_.has_prefixes();
    result_.share_prefixes = options_.share_prefixes;
    result_.device = describe_target(target_);
    result_.kernel = engine.describe();
    result_.shape = sizes_.shape;
    result_.counts = loop.counts();
    result_.waiting = loop.waiting();
    result_.ceilings = probe_.best();
    result_.bandwidth_name = probe_.bandwidth_name();
    result_.rate_name = probe_.rate_name();
    result_.rate_measured = probe_.rate_measured();
    return std::move(result_);
  }

  ReplayOptions const& options_;
  ReplayProgress const& progress_;
  Trace trace_;
  Target target_;
  std::unique_ptr<DeviceContext> device_;
  CeilingProbe probe_;
  conformance::Random random_;
  ReplaySizes sizes_;
  ReplayResult result_;
};

}  // namespace

ReplaySizes choose_sizes(ReplayOptions const& options, DeviceContext const& device, Ceilings const& ceilings) {
  bool const cuda = device.device().kind == FLASHMLA_CUDA;
  double const free_bytes = static_cast<double>(device.free_bytes());
  Defaults const defaults = defaults_for(options.demo, cuda, free_bytes > 0 ? free_bytes / kGib : 8.0);
  ReplaySizes sizes;
  sizes.shape.type = parse_16_bit_dtype(options.dtype);
  sizes.shape.heads = options.heads > 0 ? options.heads : defaults.heads;
  sizes.shape.layers = options.layers > 0 ? options.layers : defaults.layers;
  sizes.shape.page_tokens = options.page_tokens;
  sizes.shape.max_batch = options.max_batch > 0 ? options.max_batch : defaults.max_batch;
  sizes.shape.seed = options.seed;
  sizes.steps = options.steps > 0 ? options.steps : defaults.steps;
  sizes.seconds = options.seconds > 0 ? options.seconds : defaults.seconds;

  double const page_bytes = static_cast<double>(sizes.shape.page_tokens * kTokenBytes) * sizes.shape.layers;
  double const memory_gib = options.memory_gib > 0 ? options.memory_gib : defaults.memory_gib;
  sizes.shape.num_pages = options.pages > 0 ? options.pages : static_cast<int64_t>(memory_gib * kGib / page_bytes);
  bool const open = options.pages == 0 && options.memory_gib == 0;
  if (options.demo && open) sizes.shape.num_pages = std::min(sizes.shape.num_pages, demo_pages(sizes.shape, ceilings));
  if (sizes.shape.num_pages < 1)
    throw UsageError(format("replay: --memory: got %g GiB, expected at least one page of %d layers", memory_gib, sizes.shape.layers));
  auto const needed = static_cast<double>(engine_bytes(sizes.shape));
  if (free_bytes > 0 && needed > free_bytes)
    throw UsageError(format("replay: --pages: got %lld, which take %s, expected at most the %s that are free",
                            static_cast<long long>(sizes.shape.num_pages), format_bytes(needed).c_str(), format_bytes(free_bytes).c_str()));
  return sizes;
}

std::vector<double> ReplayResult::step_seconds() const {
  std::vector<double> seconds;
  for (StepRecord const& step : steps) seconds.push_back(step.seconds);
  return seconds;
}

double ReplayResult::decode_seconds() const { return sum(step_seconds()); }

Work ReplayResult::work() const {
  Work total;
  for (StepRecord const& step : steps) total += decode_work(step.batch, 1, step.kv_tokens, shape.heads);
  return {total.flop * shape.layers, total.bytes * shape.layers};
}

double ReplayResult::floor() const {
  double seconds = 0;
  for (StepRecord const& step : steps)
    seconds += shape.layers * floor_seconds(decode_work(step.batch, 1, step.kv_tokens, shape.heads), ceilings);
  return seconds;
}

double ReplayResult::worst_error() const {
  double worst = 0;
  for (SpotCheck const& check : checks) worst = std::max(worst, check.relative_error);
  return worst;
}

bool ReplayResult::checks_passed() const {
  double const bound = relative_error_bound(shape.type.dtype);
  return std::all_of(checks.begin(), checks.end(),
                     [&](SpotCheck const& check) { return check.relative_error <= bound && check.lse_error <= 1e-4 && check.appended; });
}

CacheUse cache_use(ReplayResult const& result) {
  CacheUse use;
  double const token_bytes = static_cast<double>(kTokenBytes) * result.shape.layers;
  double const reserved = static_cast<double>(result.shape.max_request_pages * result.shape.page_tokens);
  for (StepRecord const& step : result.steps) {
    use.shared += static_cast<double>(step.pages * result.shape.page_tokens) * token_bytes;
    use.paged += static_cast<double>(step.table_pages * result.shape.page_tokens) * token_bytes;
    use.padded += static_cast<double>(step.batch * step.longest) * token_bytes;
    use.contiguous += static_cast<double>(step.batch) * reserved * token_bytes;
  }
  double const count = std::max<double>(1, static_cast<double>(result.steps.size()));
  return {use.shared / count, use.paged / count, use.padded / count, use.contiguous / count};
}

SharingUse sharing_use(ReplayResult const& result) {
  SharingUse use;
  for (StepRecord const& step : result.steps) {
    double const saved = static_cast<double>(step.table_pages - step.pages);
    use.saved_pages_mean += saved;
    use.saved_pages_most = std::max(use.saved_pages_most, saved);
    use.kept_pages_mean += static_cast<double>(step.kept_pages);
  }
  double const count = std::max<double>(1, static_cast<double>(result.steps.size()));
  double const page_bytes = static_cast<double>(kTokenBytes * result.shape.page_tokens) * result.shape.layers;
  use.saved_pages_mean /= count;
  use.kept_pages_mean /= count;
  use.saved_bytes_mean = use.saved_pages_mean * page_bytes;
  use.saved_bytes_most = use.saved_pages_most * page_bytes;
  return use;
}

ReplayResult run_replay(ReplayOptions const& options, ReplayProgress const& progress) { return Replay(options, progress).run(); }

}  // namespace flashmla::tools
