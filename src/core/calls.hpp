// The validated form of one call's views: plain pointers and strides, checked against the problem once, in core.
//
// Backends, and the reference, take these. Pointers lie on the plan's device. Strides count elements. The pair form
// (q_nope, q_pe), (ckv, kpe) is reduced to two base pointers with their own strides; a fused tensor is the pair whose
// second pointer is the first plus `latent` elements, so that code which does not care sees one form only. So is a ragged
// call: its batch strides are 0, and token t of a request is token query_tokens(...).first + t of the views.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.hpp"
#include "core/query_tokens.hpp"

namespace flashmla::core {

struct RowStrides {
  int64_t batch, token, head;
};

struct LengthsCall {
  int32_t batch = 0;
  int32_t q_tokens = 1;                // of every request, or with q_offsets the most that one may have
  int32_t const* kv_len = nullptr;     // [batch]
  int32_t const* q_offsets = nullptr;  // [batch + 1]: ragged queries; null: uniform
};

struct DecodeCall {
  int32_t batch = 0;
  int32_t q_tokens = 1;          // of every request, or with q_offsets the most that one may have
  int64_t total_q = 0;           // tokens of q, out and lse; with q_offsets there may be more than requests have
  bool q_fused = true;           // q_pe is q_nope + latent with equal strides
  bool cache_fused = true;       // kpe is ckv + latent with equal strides
  void const* q_nope = nullptr;  // [batch, q_tokens, h_q, latent], ragged [total_q, h_q, latent]
  void const* q_pe = nullptr;    // [batch, q_tokens, h_q, rope], ragged [total_q, h_q, rope]
  RowStrides q_nope_stride{}, q_pe_stride{};
  void const* ckv = nullptr;  // [num_pages, page_tokens, h_kv, latent]
  void const* kpe = nullptr;  // [num_pages, page_tokens, h_kv, rope]
  int64_t ckv_page_stride = 0, ckv_token_stride = 0, ckv_head_stride = 0;
  int64_t kpe_page_stride = 0, kpe_token_stride = 0, kpe_head_stride = 0;
  int64_t num_pages = 0;
  int32_t const* page_table = nullptr;   // [batch, table_pages]
  int64_t page_table_stride = 0;         // between rows
  int64_t table_pages = 0;               // width of the table
  int32_t const* kv_len = nullptr;       // [batch]
  int32_t const* q_offsets = nullptr;    // [batch + 1] or null
  int32_t const* visible_len = nullptr;  // [total_q] or null
  float const* sink = nullptr;           // [h_q] or null
  void* out = nullptr;                   // [batch, q_tokens, h_q, v_dim], ragged [total_q, h_q, v_dim], problem.out_dtype
  RowStrides out_stride{};
  float* lse = nullptr;  // strides express either layout; null when not wanted
  RowStrides lse_stride{};

  [[nodiscard]] constexpr QueryBounds query_bounds() const { return {q_offsets, q_tokens, total_q}; }
};

struct MergeCall {
  int64_t num_parts = 0, tokens = 0, heads = 0, v_dim = 0;
  flashmla_dtype partial_dtype = FLASHMLA_FP32, out_dtype = FLASHMLA_BF16;
  flashmla_lse_base lse_base = FLASHMLA_LSE_NATURAL;
  flashmla_empty_row empty_row = FLASHMLA_EMPTY_LSE_PLUS_INF;
  void const* partial_out = nullptr;   // [num_parts, tokens, heads, v_dim]
  int64_t partial_out_stride[3] = {};  // part, token, head
  float const* partial_lse = nullptr;  // [num_parts, tokens, heads]
  int64_t partial_lse_stride[3] = {};
  float const* sink = nullptr;  // [heads], natural log, or null
  void* out = nullptr;          // [tokens, heads, v_dim]
  int64_t out_stride[2] = {};   // token, head
  float* lse = nullptr;         // [tokens, heads] or null
  int64_t lse_stride[2] = {};
  flashmla_device device{};
};

struct AppendCall {
  KvFormat const* format = nullptr;
  int64_t tokens = 0;
  void const* ckv = nullptr;  // [tokens, latent]
  void const* kpe = nullptr;  // [tokens, rope]
  int64_t ckv_token_stride = 0, kpe_token_stride = 0;
  int64_t const* slot_mapping = nullptr;  // [tokens]
  void* cache = nullptr;                  // [num_pages, page_tokens, qk_dim]
  int64_t num_pages = 0, page_tokens = 0, page_stride = 0, token_stride = 0;
  flashmla_fault* fault = nullptr;  // on the device, or null
  flashmla_device device{};
};

/// A page is rows of `width` elements: [rows[0], rows[1], width]. What lies between them is not part of it.
struct CopyPagesCall {
  flashmla_view const* caches = nullptr;  // [num_caches]: all alike but for their memory
  int64_t num_caches = 0;
  flashmla_page_copy const* copies = nullptr;  // [num_copies]; pairs of -1 ask for nothing
  int64_t num_copies = 0;
  int64_t elem_bytes = 0;
  int64_t num_pages = 0, page_stride = 0;
  int64_t rows[2] = {1, 1}, row_stride[2] = {};
  int64_t width = 0;  // 0: a page has no elements
  flashmla_device device{};
};

/// Check the views against the problem; throw Error. `device` is the plan's: views of another are rejected.
LengthsCall validate(Problem const& problem, flashmla_device device, flashmla_lengths const& lengths);
DecodeCall validate(Problem const& problem, flashmla_device device, flashmla_decode_args const& args);
MergeCall validate(flashmla_merge_args const& args);
AppendCall validate(flashmla_append_args const& args);
CopyPagesCall validate(flashmla_copy_pages_args const& args);

/// The two buffers of a run, checked as validate_buffer does, and that neither lies where the call's views do.
struct RunBuffers {
  void const* schedule = nullptr;
  void* workspace = nullptr;
};
struct BufferBytes {
  size_t schedule = 0, workspace = 0;
};
RunBuffers validate_run_buffers(flashmla_device device, flashmla_decode_args const& args, flashmla_view const& schedule,
                                flashmla_view const& workspace, BufferBytes bytes);

/// The schedule that `update` writes, checked as validate_buffer does, and that it does not lie where the lengths do.
void* validate_update_buffer(flashmla_device device, flashmla_lengths const& lengths, flashmla_view const& schedule, size_t bytes);

/// A caller-owned buffer: contiguous, of any dtype, at least `bytes` long, 256-byte aligned, on `device`.
void* validate_buffer(char const* operation, char const* argument, flashmla_view const& buffer, size_t bytes, flashmla_device device);

}  // namespace flashmla::core
