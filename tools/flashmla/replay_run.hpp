// Replay of a trace: sizes from options, the loop of a serving engine, and everything that was observed on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/flashmla/ceilings.hpp"
#include "tools/flashmla/decode_engine.hpp"
#include "tools/flashmla/serving.hpp"
#include "tools/flashmla/target.hpp"
#include "tools/flashmla/trace.hpp"

namespace flashmla::tools {

inline constexpr int32_t kModelLayers = 61, kModelHeads = 128;  // DeepSeek-V3

/// 0 leaves a size to choose_sizes.
struct ReplayOptions {
  std::string trace;
  bool demo = false;
  int64_t pages = 0;
  double memory_gib = 0;
  int64_t max_batch = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int64_t steps = 0;
  double seconds = 0;
  int32_t page_tokens = 64;
  std::string dtype = "bf16";
  int64_t checks = 8;
  bool share_prefixes = true;
  double time_scale = 0;  // trace seconds a second of decoding; 0: every request has arrived before the first step
  uint64_t seed = 1;
  BackendOptions backend;
};

struct ReplaySizes {
  EngineShape shape;  // max_request_pages still open
  int64_t steps = 0;
  double seconds = 0;  // 0: no limit
};

/// Fills in what the options leave open, from the device's memory and its ceilings. Throws UsageError.
ReplaySizes choose_sizes(ReplayOptions const& options, DeviceContext const& device, Ceilings const& ceilings);

struct StepRecord {
  int64_t batch = 0;
  int64_t waiting = 0;
  int64_t kv_tokens = 0;    // over the batch
  int64_t longest = 0;      // tokens of the longest request
  int64_t pages = 0;        // that the batch holds; a shared one counts once
  int64_t table_pages = 0;  // entries of its page tables: the pages that it would hold without sharing
  int64_t kept_pages = 0;   // of prompts that nobody runs
  double seconds = 0;
};

struct ReplayResult {
  std::string trace_name;
  TraceFormat trace_format{};
  int64_t trace_requests = 0;
  bool trace_has_prefixes = false;
  bool share_prefixes = false;
  std::string device;
  std::string kernel;
  EngineShape shape;
  std::vector<StepRecord> steps;
  ServingCounts counts;
  int64_t waiting = 0;  // at the end
  std::vector<SpotCheck> checks;
  Ceilings ceilings;
  std::string bandwidth_name, rate_name;
  bool rate_measured = true;

  [[nodiscard]] double decode_seconds() const;
  [[nodiscard]] std::vector<double> step_seconds() const;
  [[nodiscard]] Work work() const;
  [[nodiscard]] double floor() const;
  [[nodiscard]] double worst_error() const;
  [[nodiscard]] bool checks_passed() const;
};

/// Bytes of KV cache, all layers, that some ways of keeping it would take, as means over the steps.
struct CacheUse {
  double shared = 0;      // pages in use
  double paged = 0;       // as many pages as the page tables have entries: without sharing
  double padded = 0;      // batch x the longest request of the step
  double contiguous = 0;  // batch x the longest request of all: what must be reserved when lengths are unknown
};
CacheUse cache_use(ReplayResult const& result);

/// What sharing saved, against the same steps without it.
struct SharingUse {
  double saved_pages_mean = 0, saved_pages_most = 0;  // a layer
  double saved_bytes_mean = 0, saved_bytes_most = 0;  // all layers
  double kept_pages_mean = 0;                         // of prompts that nobody ran, for those to come
};
SharingUse sharing_use(ReplayResult const& result);

/// Called now and then with what is being done and how much of it is.
using ReplayProgress = std::function<void(std::string const& what, double fraction, std::string const& note)>;

ReplayResult run_replay(ReplayOptions const& options, ReplayProgress const& progress);

}  // namespace flashmla::tools
