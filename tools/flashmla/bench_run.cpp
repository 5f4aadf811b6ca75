// One shape of decode attention, timed: see bench_run.hpp.
#include "tools/flashmla/bench_run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "conformance/random.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/paged_cache.hpp"
#include "tools/flashmla/statistics.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr double kRoundSeconds = 0.02;
constexpr int64_t kMostCaches = 256;
constexpr int64_t kMostExtraRounds = 3;  // times the wanted ones, when rounds are disturbed
constexpr int32_t kCheckedRows = 8;

/// The buffers of one case. Caches rotate: together they exceed what the chip's caches hold, and every call reads
/// another one, through a page table of its own whose pages lie in random order.
class BenchCall {
 public:
  BenchCall(BenchCase const& shape, Target const& target, DeviceContext& device)
      : shape_(shape), device_(device), plan_(DecodePlan::make(problem(shape), target)) {
    table_pages_ = std::max<int64_t>(1, num_pages(shape.kv_tokens));
    int64_t call_pages = 0;
    for (int64_t r = 0; r < shape.batch; ++r) call_pages += num_pages(shape.length(r));
    call_pages = std::max<int64_t>(1, call_pages);
    int64_t const call_bytes = call_pages * shape.page_tokens * shape.type.token_bytes();
    num_caches_ = std::clamp<int64_t>((device.cold_bytes() + call_bytes - 1) / call_bytes, 2, kMostCaches);
    num_pages_ = num_caches_ * call_pages;
    require_memory(num_pages_ * shape.page_tokens * shape.type.token_bytes());
    make_inputs();
    schedule_ = Buffer(device, plan_.schedule_bytes());
    workspace_ = Buffer(device, plan_.workspace_bytes());
    plan_.reset(bytes(workspace_), device.stream());
    plan_.update(lengths(), bytes(schedule_), device.stream());
  }

  void enqueue() {
    plan_.run(args(next_), bytes(schedule_), bytes(workspace_), device_.stream());
    last_ = next_;
    next_ = (next_ + 1) % num_caches_;
  }

  [[nodiscard]] std::string describe() const { return plan_.describe(); }
  [[nodiscard]] int64_t num_caches() const { return num_caches_; }

  /// The last call's output for one of its requests, with what it was made from.
  RowSample sample(int64_t request) const;

 private:
  static Problem problem(BenchCase const& shape);
  [[nodiscard]] int64_t num_pages(int64_t tokens) const { return (tokens + shape_.page_tokens - 1) / shape_.page_tokens; }
  void require_memory(int64_t cache_bytes) const;
  void make_inputs();
  [[nodiscard]] Lengths lengths() const;
  [[nodiscard]] DecodeArgs args(int64_t cache) const;
  [[nodiscard]] View bytes(Buffer const& buffer) const { return View::bytes(buffer.data(), buffer.bytes(), device_.device()); }

  BenchCase shape_;
  DeviceContext& device_;
  DecodePlan plan_;
  int64_t table_pages_ = 0, num_caches_ = 0, num_pages_ = 0;
  int64_t next_ = 0, last_ = 0;
  Buffer q_;            // [batch, q_tokens, heads, qk_dim]
  Buffer cache_;        // [num_pages, page_tokens, qk_dim]
  Buffer page_tables_;  // int32 [num_caches, batch, table_pages]
  Buffer kv_len_;       // int32 [batch]
  Buffer out_;          // [batch, q_tokens, heads, v_dim]
  Buffer lse_;          // float32 [batch, heads, q_tokens]
  Buffer schedule_, workspace_;
  std::vector<int32_t> host_tables_;
};

Problem BenchCall::problem(BenchCase const& shape) {
  Problem problem = Problem::decode(shape.heads, shape.type.format, shape.batch);
  problem.page_tokens = shape.page_tokens;
  problem.max_q_tokens = shape.q_tokens;
  problem.max_total_kv_tokens = shape.total_tokens();
  if (shape.batch_invariant) {
    problem.set_batch_invariant(shape.chunk_tokens);
    problem.max_kv_len = shape.kv_tokens;  // a GPU keeps a place for every chunk
  }
  return problem.set_causal();
}

void BenchCall::require_memory(int64_t cache_bytes) const {
  int64_t const free_bytes = device_.free_bytes();
  if (free_bytes == 0 || cache_bytes <= free_bytes) return;
  throw UsageError(format("bench: --kv: got caches of %s, expected at most the %s that are free",
                          format_bytes(static_cast<double>(cache_bytes)).c_str(), format_bytes(static_cast<double>(free_bytes)).c_str()));
}

void BenchCall::make_inputs() {
  constexpr uint64_t kSeed = 1;
  int64_t const rows = static_cast<int64_t>(shape_.batch) * shape_.q_tokens * shape_.heads;
  q_ = random_numbers(device_, shape_.type, kQueryStd, rows * shape_.type.qk_dim, kSeed);
  out_ = Buffer(device_, static_cast<size_t>(rows * shape_.type.v_dim * shape_.type.bytes()));
  lse_ = Buffer(device_, static_cast<size_t>(rows) * sizeof(float));
  cache_ = Buffer(device_, static_cast<size_t>(num_pages_ * shape_.page_tokens * shape_.type.token_bytes()));
  TokenBlock(device_, shape_.type, kSeed + 1).fill(cache_.data(), num_pages_ * shape_.page_tokens, 0);
  device_.synchronize();

  std::vector<int32_t> pages(static_cast<size_t>(num_pages_));
  std::iota(pages.begin(), pages.end(), 0);
  conformance::Random(kSeed + 2).shuffle(pages);
  host_tables_.assign(static_cast<size_t>(num_caches_ * shape_.batch * table_pages_), 0);  // entries beyond a request are junk
  auto page = pages.begin();
  for (int64_t row = 0; row < num_caches_ * shape_.batch; ++row) {
    int64_t const count = num_pages(shape_.length(row % shape_.batch));
    std::copy_n(page, count, host_tables_.begin() + row * table_pages_);
    page += count;
  }
  page_tables_ = Buffer(device_, host_tables_.size() * sizeof(int32_t));
  device_.copy_in(page_tables_.data(), host_tables_.data(), page_tables_.bytes());
  std::vector<int32_t> kv_len;
  for (int64_t r = 0; r < shape_.batch; ++r) kv_len.push_back(shape_.length(r));
  kv_len_ = Buffer(device_, kv_len.size() * sizeof(int32_t));
  device_.copy_in(kv_len_.data(), kv_len.data(), kv_len_.bytes());
}

Lengths BenchCall::lengths() const {
  return Lengths(View::contiguous(kv_len_.data(), kInt32, device_.device(), {shape_.batch}), shape_.q_tokens);
}

DecodeArgs BenchCall::args(int64_t cache) const {
  Device const device = device_.device();
  DType const dtype = shape_.type.dtype;
  int64_t const batch = shape_.batch, q_tokens = shape_.q_tokens, heads = shape_.heads;
  auto const* const table = static_cast<int32_t const*>(page_tables_.data()) + cache * batch * table_pages_;
  DecodeArgs args;
  args.q = View::contiguous(q_.data(), dtype, device, {batch, q_tokens, heads, shape_.type.qk_dim});
  args.cache = View::contiguous(cache_.data(), dtype, device, {num_pages_, shape_.page_tokens, shape_.type.qk_dim});
  args.page_table = View::contiguous(table, kInt32, device, {batch, table_pages_});
  args.lengths = lengths();
  args.out = View::contiguous(out_.data(), dtype, device, {batch, q_tokens, heads, shape_.type.v_dim});
  args.lse = View::contiguous(lse_.data(), kFp32, device, {batch, heads, q_tokens});
  return args;
}

RowSample BenchCall::sample(int64_t request) const {
  auto const rows = static_cast<size_t>(shape_.q_tokens) * static_cast<size_t>(shape_.heads);
  size_t const words = shape_.type.words(), qk_dim = static_cast<size_t>(shape_.type.qk_dim);
  size_t const page_elems = static_cast<size_t>(shape_.page_tokens) * qk_dim * words;
  RowSample sample{shape_.type, shape_.page_tokens, shape_.q_tokens, shape_.heads, shape_.length(request), {}, {}, {}, {}};
  sample.q.resize(rows * qk_dim * words);
  sample.out.resize(rows * static_cast<size_t>(shape_.type.v_dim) * words);
  sample.lse.resize(rows);
  sample.pages.resize(static_cast<size_t>(table_pages_) * page_elems);
  auto const first = static_cast<size_t>(request);
  device_.copy_out(sample.q.data(), static_cast<uint16_t const*>(q_.data()) + first * sample.q.size(), sample.q.size() * sizeof(uint16_t));
  device_.copy_out(sample.out.data(), static_cast<uint16_t const*>(out_.data()) + first * sample.out.size(),
                   sample.out.size() * sizeof(uint16_t));
  device_.copy_out(sample.lse.data(), static_cast<float const*>(lse_.data()) + first * rows, rows * sizeof(float));
  int32_t const* const table = host_tables_.data() + (last_ * shape_.batch + request) * table_pages_;
  for (size_t i = 0; i < static_cast<size_t>(table_pages_); ++i) {
    auto const* const page = static_cast<uint16_t const*>(cache_.data()) + static_cast<size_t>(table[i]) * page_elems;
    device_.copy_out(sample.pages.data() + i * page_elems, page, page_elems * sizeof(uint16_t));
  }
  return sample;
}

/// As many calls as make a measurement long enough to be one; on CUDA at least a whole turn of the caches, because a
/// captured graph repeats the same ones.
int calls_per_round(BenchCall const& call, double seconds, bool cuda) {
  auto const wanted = static_cast<int64_t>(std::ceil(kRoundSeconds / std::max(seconds, 1e-7)));
  return static_cast<int>(std::clamp<int64_t>(wanted, cuda ? call.num_caches() : 1, 512));
}

}  // namespace

std::vector<BenchCase> combinations(BenchAxes const& axes) {
  std::vector<BenchCase> cases;
  for (ElementType const& type : axes.types)
    for (int32_t const page_tokens : axes.page_tokens)
      for (int32_t const q_tokens : axes.q_tokens)
        for (int32_t const batch : axes.batch)
          for (int32_t const heads : axes.heads)
            for (int32_t const kv_tokens : axes.kv_tokens) cases.push_back({heads, batch, kv_tokens, q_tokens, page_tokens, type});
  return cases;
}

int64_t BenchCase::total_tokens() const {
  if (lengths.empty()) return static_cast<int64_t>(batch) * kv_tokens;
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

std::vector<int32_t> trace_lengths(Trace const& trace, int32_t batch) {
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < batch; ++i) {
    TraceRequest const& request = trace.requests[static_cast<size_t>(i) * trace.requests.size() / static_cast<size_t>(batch)];
    int64_t const tokens = request.input_tokens + request.output_tokens / 2;
    lengths.push_back(static_cast<int32_t>(std::clamp<int64_t>(tokens, 1, std::numeric_limits<int32_t>::max())));
  }
  return lengths;
}

double BenchResult::median_seconds() const {
  std::vector<double> seconds;
  for (BenchRound const& round : rounds) seconds.push_back(round.seconds);
  return median(seconds);
}

double BenchResult::best_seconds() const {
  std::vector<double> seconds;
  for (BenchRound const& round : rounds) seconds.push_back(round.seconds);
  return smallest(seconds);
}

double BenchResult::fraction_of_floor() const {
  std::vector<double> fractions;
  for (BenchRound const& round : rounds) fractions.push_back(floor_seconds(work, round.ceilings) / round.seconds);
  return median(fractions);
}

std::vector<BenchRound> undisturbed(std::vector<BenchRound> const& rounds, Work const& work) {
  constexpr double kTolerated = 1.15;
  std::vector<double> floors;
  for (BenchRound const& round : rounds) floors.push_back(floor_seconds(work, round.ceilings));
  double const best = smallest(floors);
  std::vector<BenchRound> kept;
  for (size_t i = 0; i < rounds.size(); ++i)
    if (floors[i] <= kTolerated * best) kept.push_back(rounds[i]);
  return kept;
}

BenchResult run_bench(BenchCase const& shape, Target const& target, DeviceContext& device, int64_t rounds,
                      std::function<void(int64_t)> const& on_round) {
  BenchCall call(shape, target, device);
  CeilingProbe probe(device, target, shape.type.dtype);
  BenchResult result;
  result.shape = shape;
  result.kernel = call.describe();
  result.work = decode_work(shape.batch, shape.q_tokens, shape.total_tokens(), shape.heads, shape.type);

  bool const cuda = target.device.kind == FLASHMLA_CUDA;
  double const once = device.measure(1, [&](int) { call.enqueue(); })->seconds_per_call();
  auto const measurement = device.measure(calls_per_round(call, once, cuda), [&](int) { call.enqueue(); });
  static_cast<void>(measurement->seconds_per_call());  // warms clocks, threads and instruction caches
  std::vector<BenchRound> all;
  Ceilings before = probe.sample();
  while (static_cast<int64_t>(result.rounds.size()) < rounds && static_cast<int64_t>(all.size()) < (1 + kMostExtraRounds) * rounds) {
    double const seconds = measurement->seconds_per_call();
    Ceilings const after = probe.sample();
    all.push_back({seconds, better_of(before, after)});
    before = after;
    result.rounds = undisturbed(all, result.work);
    on_round(static_cast<int64_t>(result.rounds.size()));
  }
  result.disturbed = static_cast<int64_t>(all.size() - result.rounds.size());
  result.ceilings = probe.best();
  result.bandwidth_name = probe.bandwidth_name();
  result.rate_name = probe.rate_name();
  result.error = compare_with_reference(call.sample(shape.batch / 2), kCheckedRows);
  return result;
}

}  // namespace flashmla::tools
