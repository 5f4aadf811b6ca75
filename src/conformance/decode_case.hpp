// One case of dense decode, as data. Makers of cases set fields; `DecodeInputs` turns a case into tensors.
//
// Poison is not an option: in every case unused pages, tails past a length, padding and memory around each tensor hold
// NaN, and page table entries past a length hold junk.
#pragma once

#include <flashmla/flashmla.h>

#include <optional>
#include <string>
#include <vector>

#include "core/query_tokens.hpp"

namespace flashmla::conformance {

enum class Tier { kSmoke, kCi, kFull };

enum class QLayout {
  kContiguous,  // [batch, q_tokens, h_q, qk_dim]
  kPadded,      // a head stride of 640
  kUnaligned,   // heads outermost, odd strides, a base that is aligned to one element only
  kPair,        // q_nope and q_pe as tensors of their own
};
enum class CacheLayout {
  kContiguous,    // [num_pages, page_tokens, h_kv, qk_dim]
  kPaddedPages,   // NaN between pages
  kPaddedTokens,  // a token stride of 640 per head
  kUnaligned,     // pages that begin at any multiple of one element
  kPair,          // ckv and kpe as tensors of their own
};
enum class Sink { kNone, kFinite, kInfinite };  // kInfinite: heads take turns with +inf, -inf and a number

/// A page table entry that names no page.
struct BadPage {
  int32_t request, entry, id;
};

struct DecodeCase {
  std::string name;

  // The problem.
  flashmla_kv_format format = FLASHMLA_KV_BF16_576;
  flashmla_dtype out_dtype = FLASHMLA_DTYPE_NONE;  // none: as q
  int32_t h_q = 16, h_kv = 1, page_tokens = 64, q_tokens = 1;
  bool causal = false, batch_invariant = false;
  int32_t chunk_tokens = 0;  // with batch_invariant; 0: the library's choice
  std::optional<float> scale;
  flashmla_lse_base lse_base = FLASHMLA_LSE_NATURAL;
  flashmla_lse_layout lse_layout = FLASHMLA_LSE_BATCH_HEADS_TOKENS;
  flashmla_empty_row empty_row = FLASHMLA_EMPTY_LSE_PLUS_INF;
  int64_t spare_batch = 0;     // max_batch beyond this call's batch
  int32_t spare_q_tokens = 0;  // max_q_tokens beyond q_tokens
  int64_t max_kv_len = 0;      // 0: not declared

  // Lengths.
  std::vector<int32_t> kv_len;              // [batch]
  std::vector<int32_t> visible_len;         // [total_q] or empty
  std::vector<int32_t> schedule_lengths;    // what the schedule is made from; empty: kv_len. Of another size: a fault
  std::vector<int32_t> q_offsets;           // [batch + 1]: ragged, q_tokens being the bound; empty: uniform
  int32_t ragged_tokens = 0;                // tokens of q with q_offsets; rows of no request stay as they are
  std::vector<int32_t> schedule_q_offsets;  // what the schedule is made from; empty: q_offsets
  bool schedule_is_uniform = false;         // the schedule is made without q_offsets: a fault
  bool bound_by_default = false;            // the bound is left to max_q_tokens
  bool update_schedule = true;              // false: run meets a schedule that was never made
  int64_t table_pages = 0;                  // width of the page table; 0: what the lengths need and three columns of junk
  std::vector<BadPage> bad_pages;
  int64_t low_pages = 0;  // unused pages in front of all others; 0: used and unused pages are shuffled

  // Data and layout.
  float q_std = 10.0f;                    // with keys of deviation 0.1 and the default scale, scores have a deviation of q_std / 10
  float first_score = 0, last_score = 0;  // added to scores of a request's first and last token, and a line in between; not with pairs
  Sink sink = Sink::kNone;
  QLayout q_layout = QLayout::kContiguous;
  CacheLayout cache_layout = CacheLayout::kContiguous;
  bool rank3_cache = false;  // leave out the dimension of h_kv, which is 1
  bool padded_out = false, want_lse = true;
  int32_t runs = 2;  // on one workspace after one reset; all give the same bits

  [[nodiscard]] int32_t batch() const { return static_cast<int32_t>(kv_len.size()); }
  [[nodiscard]] bool is_ragged() const { return !q_offsets.empty(); }
  [[nodiscard]] bool has_line() const { return first_score != 0 || last_score != 0; }
  /// Query tokens of q, out and lse.
  [[nodiscard]] int64_t total_q() const { return is_ragged() ? ragged_tokens : static_cast<int64_t>(batch()) * q_tokens; }
  /// Query tokens of a request; in a uniform case `first` is 0, for there is a batch dimension.
  [[nodiscard]] core::QueryTokens tokens_of(int32_t request) const {
    return core::query_tokens({is_ragged() ? q_offsets.data() : nullptr, q_tokens, total_q()}, request);
  }
  [[nodiscard]] size_t schedule_batch() const { return schedule_lengths.empty() ? kv_len.size() : schedule_lengths.size(); }
  [[nodiscard]] bool schedule_matches() const { return update_schedule && !schedule_is_uniform && schedule_batch() == kv_len.size(); }
};

/// Upstream's dense matrix, 2,304 cases (batch x q tokens x length x heads x KV heads x varlen x causal).
std::vector<DecodeCase> dense_matrix();
/// Whether a tier runs a case of the dense matrix: full all of them, ci those that a CPU can afford, smoke a handful.
bool runs_in(Tier tier, DecodeCase const& c);

/// Our own cases: one option at a time, then combinations that engines use.
std::vector<DecodeCase> option_cases(Tier tier);

/// Cases with q_offsets, in BF16; option_cases has them with their twins.
std::vector<DecodeCase> ragged_cases(Tier tier);

/// What `tier` runs, in order; names are unique.
std::vector<DecodeCase> decode_cases(Tier tier);

}  // namespace flashmla::conformance
