// The attention of a model's layers over a paged cache, one step at a time, as a serving engine drives the library.
//
// Every layer has a cache of its own; one page table serves all. A step writes the lengths, the page table and the slots
// of the new tokens, updates the schedule once, and then, layer by layer, appends the new tokens and attends. What the
// numbers are does not matter here, so caches are filled once with random ones, and queries and new tokens are windows
// into pools of random rows, moved with step and layer; after that nothing is made up while decoding.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tools/flashmla/device.hpp"
#include "tools/flashmla/paged_cache.hpp"
#include "tools/flashmla/serving.hpp"
#include "tools/flashmla/target.hpp"

namespace flashmla::tools {

struct EngineShape {
  ElementType type;
  int32_t heads = 128;
  int32_t layers = 1;
  int32_t page_tokens = 64;
  int64_t num_pages = 0;
  int64_t max_batch = 1;
  int64_t max_request_pages = 1;
  uint64_t seed = 1;
};

/// Bytes that an engine of this shape takes on its device besides schedule and workspace.
[[nodiscard]] int64_t engine_bytes(EngineShape const& shape);

/// Error of a sampled output against the reference.
struct SpotCheck {
  int64_t step = 0;
  int32_t layer = 0;
  size_t request = 0;  // index in the trace
  int32_t kv_tokens = 0;
  double relative_error = 0;  // |out - reference| / |reference| over the sampled heads
  double lse_error = 0;       // largest absolute
  bool appended = false;      // the cache holds the token that this step appended, bit for bit
};

class DecodeEngine {
 public:
  /// Reports how much of the cache is filled, from 0 to 1.
  using FillProgress = std::function<void(double)>;

  DecodeEngine(EngineShape const& shape, Target const& target, DeviceContext& device, FillProgress const& progress);

  /// Copies pages in all layers, one after the other; enqueued before what the next step writes.
  void copy_pages(std::vector<PageCopy> const& copies) const;

  /// One token for every request of `batch`, through all layers; done on return. `watched_layer` keeps its output for
  /// spot_check. Throws when the device recorded a fault, in lengths, page ids or slots.
  void step(std::vector<Running> const& batch, int64_t step, int32_t watched_layer);

  /// Compares request `row` of the last step's batch in the watched layer with the reference, for `heads` of its heads.
  [[nodiscard]] SpotCheck spot_check(std::vector<Running> const& batch, size_t row, int32_t heads);

  /// The numbers of a page, after all work on the stream.
  [[nodiscard]] std::vector<uint16_t> download_page(int32_t page, int32_t layer) const;

  [[nodiscard]] std::string describe() const { return plan_.describe(); }

 private:
  void fill(FillProgress const& progress);
  void stage(std::vector<Running> const& batch);
  void check_faults() const;
  [[nodiscard]] Problem problem() const;
  [[nodiscard]] int64_t pool_row(int64_t step, int32_t layer) const;
  [[nodiscard]] char const* query_row(int64_t row) const;
  [[nodiscard]] char const* token_row(int64_t row) const;
  [[nodiscard]] View cache_view(int32_t layer) const;
  [[nodiscard]] DecodeArgs decode_args(int64_t batch, int32_t layer) const;
  [[nodiscard]] AppendArgs append_args(int64_t batch, int32_t layer) const;

  EngineShape shape_;
  DeviceContext& device_;
  DecodePlan plan_;
  std::vector<Buffer> caches_;  // a layer each: [num_pages, page_tokens, qk_dim]
  Buffer queries_;              // [max_batch + kPoolRows, heads, qk_dim]
  Buffer tokens_;               // [max_batch + kPoolRows, qk_dim]
  Buffer kv_len_;               // int32 [max_batch]
  Buffer page_table_;           // int32 [max_batch, max_request_pages]
  Buffer slots_;                // int64 [max_batch]
  Buffer out_, watched_out_;    // [max_batch, heads, latent]
  Buffer lse_, watched_lse_;    // float32 [max_batch, heads]
  Buffer schedule_, workspace_, append_fault_;
  std::vector<int32_t> host_kv_len_, host_page_table_;
  std::vector<int64_t> host_slots_;
  int64_t last_step_ = 0;
  int32_t watched_layer_ = 0;
};

}  // namespace flashmla::tools
