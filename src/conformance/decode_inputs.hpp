// The tensors of one case: made, poisoned, passed to the library as views and to the oracle as a core::DecodeCall.
//
// The call for the oracle is built from the case here, not by core's validation, which is part of what is tested.
#pragma once

#include <string>

#include "conformance/buffer.hpp"
#include "conformance/decode_case.hpp"
#include "conformance/random.hpp"
#include "core/calls.hpp"

namespace flashmla::conformance {

class DecodeInputs {
 public:
  DecodeInputs(DecodeCase const& c, DeviceMemory& memory);

  [[nodiscard]] flashmla_lengths schedule_lengths() const;
  [[nodiscard]] flashmla_decode_args args() const;

  /// The same call with pointers of the device or of the host.
  [[nodiscard]] core::DecodeCall device_call() const;
  [[nodiscard]] core::DecodeCall host_call() const;

  void poison_outputs();
  void download_outputs();
  /// After a download: the padding of `out`, rows that no request has and all guards are as they were; else what was overwritten.
  [[nodiscard]] std::string overwritten() const;

  [[nodiscard]] Buffer const& out() const { return out_; }
  [[nodiscard]] Buffer const& lse() const { return lse_; }

 private:
  void make_lengths(Random& random);
  void make_page_table(Random& random);
  void make_queries(Random& random);
  void make_cache(Random& random);
  void make_outputs();
  void fill_page(Random& random, int32_t page, int32_t num_tokens);
  /// The last number of each key, which every query multiplies by 1 / scale.
  void draw_line(int32_t page, int32_t first, int32_t kv_len);
  [[nodiscard]] flashmla_lengths lengths_of(Buffer const& kv_len, Buffer const& q_offsets) const;
  [[nodiscard]] flashmla_view row_view(void* data, flashmla_dtype dtype, core::RowStrides const& s, int64_t width) const;
  [[nodiscard]] flashmla_view lse_view() const;
  /// Strides (batch, token, head) of rows that lie one behind the other, heads `head` elements apart.
  [[nodiscard]] core::RowStrides dense_strides(int64_t head) const;
  /// Elements from the first to the last of rows with these strides.
  [[nodiscard]] int64_t row_elems(core::RowStrides const& s, int64_t width) const;
  /// Rows of out and lse that no request has, and that were written to.
  [[nodiscard]] std::string overwritten_spare_rows() const;
  [[nodiscard]] core::DecodeCall call(bool on_host) const;
  /// Element `index` of q or of the cache.
  [[nodiscard]] void* element(void* base, int64_t index) const;
  [[nodiscard]] int32_t clamped(int32_t kv_len) const;

  DecodeCase const& case_;
  DeviceMemory& memory_;
  core::KvFormat const& format_;
  flashmla_dtype dtype_;  // of q and the cache
  flashmla_dtype out_dtype_;
  int64_t num_pages_ = 0, table_pages_ = 0, table_stride_ = 0;
  int64_t q_offset_ = 0, cache_offset_ = 0;  // elements in front of the first one
  core::RowStrides q_stride_{}, q_pe_stride_{}, out_stride_{}, lse_stride_{};
  core::RowStrides ckv_stride_{}, kpe_stride_{};  // (page, token, head)
  Buffer q_, q_pe_, ckv_, kpe_, page_table_, kv_len_, schedule_len_, q_offsets_, schedule_q_offsets_, visible_len_, sink_, out_, lse_;
};

/// The problem of a case, as the library gets it and as the oracle does.
flashmla_problem make_problem(DecodeCase const& c);
core::Problem make_core_problem(DecodeCase const& c);

}  // namespace flashmla::conformance
