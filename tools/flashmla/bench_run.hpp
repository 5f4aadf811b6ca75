// One shape of decode attention, timed: cold caches, rounds that take turns with the ceilings, a guard against the
// reference at the end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/flashmla/ceilings.hpp"
#include "tools/flashmla/device.hpp"
#include "tools/flashmla/row_check.hpp"
#include "tools/flashmla/target.hpp"
#include "tools/flashmla/trace.hpp"

namespace flashmla::tools {

struct BenchCase {
  int32_t heads = 128;
  int32_t batch = 1;
  int32_t kv_tokens = 4096;  // of every request, or of the longest where lengths differ
  int32_t q_tokens = 1;
  int32_t page_tokens = 64;
  ElementType type;
  bool batch_invariant = false;
  int32_t chunk_tokens = 0;        // with batch_invariant; 0: the library's choice
  std::vector<int32_t> lengths{};  // of each request; empty: kv_tokens all of them

  [[nodiscard]] int32_t length(int64_t request) const { return lengths.empty() ? kv_tokens : lengths[static_cast<size_t>(request)]; }
  [[nodiscard]] int64_t total_tokens() const;
};

/// Lengths half way through their answers of `batch` requests, spread evenly over a trace.
std::vector<int32_t> trace_lengths(Trace const& trace, int32_t batch);

/// Every combination of some axes, the last axis running fastest.
struct BenchAxes {
  std::vector<int32_t> heads, batch, kv_tokens, q_tokens, page_tokens;
  std::vector<ElementType> types;
};
std::vector<BenchCase> combinations(BenchAxes const& axes);

struct BenchRound {
  double seconds = 0;  // a call
  Ceilings ceilings;   // the better of just before and just after
};

struct BenchResult {
  BenchCase shape;
  std::string kernel;
  std::vector<BenchRound> rounds;  // kept
  int64_t disturbed = 0;           // rounds thrown away
  Ceilings ceilings;               // best of the run
  std::string bandwidth_name, rate_name;
  Work work;
  RowError error;

  [[nodiscard]] double median_seconds() const;
  [[nodiscard]] double best_seconds() const;
  /// Median over the rounds of floor / time, each with its own round's ceilings.
  [[nodiscard]] double fraction_of_floor() const;
  /// The floor by the best ceilings over the best round's time.
  [[nodiscard]] double best_fraction_of_floor() const { return floor_seconds(work, ceilings) / best_seconds(); }
  [[nodiscard]] bool correct() const { return error.relative <= relative_error_bound(shape.type.dtype); }
};

/// Drops rounds in which the machine was not itself: the floor by the ceilings of that round lies more than 15 % above
/// that of the best one. At least one round is kept.
std::vector<BenchRound> undisturbed(std::vector<BenchRound> const& rounds, Work const& work);

/// `on_round` is told how many rounds are done.
BenchResult run_bench(BenchCase const& shape, Target const& target, DeviceContext& device, int64_t rounds,
                      std::function<void(int64_t)> const& on_round);

}  // namespace flashmla::tools
