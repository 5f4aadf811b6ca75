// Dense decode with ragged queries (q_offsets): requests with query tokens of their own number, none among them, on every option
// that meets them, with schedules made from other offsets and with offsets that no q has.
#include <algorithm>
#include <climits>

#include "conformance/decode_case.hpp"
#include "conformance/random.hpp"

namespace flashmla::conformance {
namespace {

using Cases = std::vector<DecodeCase>;

/// Sets the offsets, and q as long as they say.
void set_offsets(DecodeCase& c, std::vector<int32_t> offsets) {
  c.q_tokens = 1;
  for (size_t i = 1; i < offsets.size(); ++i) c.q_tokens = std::max(c.q_tokens, offsets[i] - offsets[i - 1]);
  c.ragged_tokens = offsets.back();
  c.q_offsets = std::move(offsets);
}

/// Four requests with 1, 2, 0 and 5 query tokens.
DecodeCase small(std::string name) {
  DecodeCase c;
  c.name = std::move(name);
  c.kv_len = {70, 3, 129, 64};
  set_offsets(c, {0, 1, 3, 3, 8});
  return c;
}

template <class Change>
void add(Cases& cases, std::string name, Change const& change) {
  cases.push_back(small(std::move(name)));
  change(cases.back());
}

std::vector<int32_t> random_numbers(char const* seed, int32_t count, int32_t first, int32_t last) {
  Random random(seed_of(seed));
  std::vector<int32_t> numbers(static_cast<size_t>(count));
  for (int32_t& number : numbers) number = random.between(first, last);
  return numbers;
}

std::vector<int32_t> offsets_of(std::vector<int32_t> const& counts) {
  std::vector<int32_t> offsets{0};
  for (int32_t const count : counts) offsets.push_back(offsets.back() + count);
  return offsets;
}

void add_options(Cases& cases) {
  add(cases, "plain", [](DecodeCase&) {});
  add(cases, "causal", [](DecodeCase& c) { c.causal = true; });
  add(cases, "one_token_each", [](DecodeCase& c) { set_offsets(c, {0, 1, 2, 3, 4}), c.causal = true; });
  add(cases, "first_and_last_have_none", [](DecodeCase& c) { set_offsets(c, {0, 0, 2, 3, 3}), c.causal = true; });
  add(cases, "nobody_has_any", [](DecodeCase& c) { set_offsets(c, {0, 0, 0, 0, 0}), c.ragged_tokens = 3; });
  add(cases, "no_query_token_at_all", [](DecodeCase& c) { set_offsets(c, {0, 0, 0, 0, 0}); });
  add(cases, "one_and_prefill", [](DecodeCase& c) { c.kv_len = {300, 64, 500, 40}, set_offsets(c, {0, 1, 65, 66, 106}), c.causal = true; });
  add(cases, "prefill_of_many_row_tiles",
      [](DecodeCase& c) { c.kv_len = {100, 700, 9, 150}, set_offsets(c, {0, 100, 101, 101, 120}), c.causal = true; });
  add(cases, "not_causal_prefill", [](DecodeCase& c) { c.kv_len = {20, 200, 0, 150}, set_offsets(c, {0, 40, 41, 43, 60}); });
  add(cases, "longer_than_cache", [](DecodeCase& c) { c.kv_len = {2, 0, 3, 5}, set_offsets(c, {0, 3, 4, 9, 14}), c.causal = true; });
  add(cases, "spare_rows_behind", [](DecodeCase& c) { c.ragged_tokens = 21, c.causal = true; });
  add(cases, "spare_rows_in_front", [](DecodeCase& c) { set_offsets(c, {4, 5, 7, 7, 12}), c.ragged_tokens = 13; });
  add(cases, "bound_below_maximum", [](DecodeCase& c) { c.spare_q_tokens = 9, c.ragged_tokens = 10; });
  add(cases, "bound_by_default", [](DecodeCase& c) { c.bound_by_default = true; });
  add(cases, "bound_above_all", [](DecodeCase& c) { c.q_tokens = 60; });
  add(cases, "zero_lengths", [](DecodeCase& c) { c.kv_len = {0, 70, 0, 0}, c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF; });
  // Spare entries of visible_len are nobody's either.
  add(cases, "visible_len", [](DecodeCase& c) { c.visible_len = {70, 3, 0, 64, 1, 0, 63, 64, -5, INT_MAX}, c.ragged_tokens = 10; });
  add(cases, "visible_len_replaces_causal", [](DecodeCase& c) { c.visible_len = {7, 3, 3, 1, 64, 2, 64, 5}, c.causal = true; });
  add(cases, "scale_zero", [](DecodeCase& c) { c.scale = 0.0f, c.causal = true; });
  add(cases, "sink", [](DecodeCase& c) { c.sink = Sink::kInfinite, c.causal = true, c.kv_len = {70, 1, 129, 64}; });
  add(cases, "out_fp32", [](DecodeCase& c) { c.out_dtype = FLASHMLA_FP32, c.ragged_tokens = 9; });
  add(cases, "out_padded", [](DecodeCase& c) { c.padded_out = true, c.ragged_tokens = 9; });
  add(cases, "lse_absent", [](DecodeCase& c) { c.want_lse = false, c.ragged_tokens = 9; });
  add(cases, "lse_tokens_heads", [](DecodeCase& c) { c.lse_layout = FLASHMLA_LSE_TOKENS_HEADS, c.ragged_tokens = 9, c.causal = true; });
  add(cases, "lse_base_2", [](DecodeCase& c) { c.lse_base = FLASHMLA_LSE_BASE_2, c.sink = Sink::kFinite; });
  add(cases, "q_padded", [](DecodeCase& c) { c.q_layout = QLayout::kPadded, c.ragged_tokens = 9; });
  add(cases, "q_unaligned", [](DecodeCase& c) { c.q_layout = QLayout::kUnaligned, c.ragged_tokens = 9; });
  add(cases, "q_pair", [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.ragged_tokens = 9, c.causal = true; });
  add(cases, "cache_pair", [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.cache_layout = CacheLayout::kPair, c.causal = true; });
  add(cases, "page_16", [](DecodeCase& c) { c.page_tokens = 16, c.causal = true; });
  for (int32_t const h_kv : {2, 8}) add(cases, "h_kv_" + std::to_string(h_kv), [h_kv](DecodeCase& c) { c.h_kv = h_kv, c.causal = true; });
  add(cases, "h_kv_3_prefill",
      [](DecodeCase& c) { c.h_kv = 3, c.h_q = 9, c.kv_len = {90, 300, 5, 64}, set_offsets(c, {0, 70, 71, 71, 130}), c.causal = true; });
  add(cases, "split", [](DecodeCase& c) { c.kv_len = {3001, 1, 70}, c.h_q = 4, set_offsets(c, {0, 1, 1, 4}), c.causal = true; });
  add(cases, "split_sink",
      [](DecodeCase& c) { c.kv_len = {1, 1500}, c.h_q = 4, set_offsets(c, {0, 2, 5}), c.causal = true, c.sink = Sink::kFinite; });
}

/// The schedule knows other query tokens than the call.
void add_stale_schedules(Cases& cases) {
  auto const stale = [&cases](char const* name, std::vector<int32_t> offsets, std::vector<int32_t> lengths) {
    for (bool const is_invariant : {false, true})
      add(cases, std::string(is_invariant ? "batch_invariant_stale_" : "stale_") + name, [&](DecodeCase& c) {
        c.kv_len = {700, 30, 129, 300}, set_offsets(c, {0, 1, 40, 40, 41}), c.causal = true, c.spare_q_tokens = 200;
        c.schedule_q_offsets = offsets, c.schedule_lengths = lengths, c.batch_invariant = is_invariant;
        c.chunk_tokens = is_invariant ? 64 : 0;
      });
  };
  stale("lengths", {}, {7, 800, 1, 0});
  stale("fewer", {0, 1, 2, 3, 4}, {});
  stale("none", {0, 0, 0, 0, 0}, {});
  stale("none_at_first", {0, 0, 0, 0, 1}, {});
  stale("more", {0, 39, 140, 180, 200}, {});
  stale("more_and_longer", {0, 39, 140, 180, 200}, {5000, 5000, 900, 2000});
  stale("more_and_shorter", {0, 39, 140, 180, 200}, {5, 5, 9, 2});
  stale("permuted", {0, 0, 1, 40, 41}, {30, 129, 300, 700});
  stale("bad", {5, -9, INT_MAX, INT_MIN, 3}, {});
  add(cases, "schedule_of_uniform_rows", [](DecodeCase& c) { c.schedule_is_uniform = true; });
  add(cases, "schedule_of_another_batch",
      [](DecodeCase& c) { c.schedule_lengths = {70, 1}, c.schedule_q_offsets = {0, 1, 3}, c.spare_batch = 4; });
  add(cases, "schedule_never_made", [](DecodeCase& c) { c.update_schedule = false; });
}

void add_invariant(Cases& cases) {
  auto const invariant = [&cases](char const* name, auto const& change) {
    add(cases, std::string("batch_invariant_") + name, [&](DecodeCase& c) {
      c.batch_invariant = true, c.chunk_tokens = 64, c.causal = true;
      change(c);
    });
  };
  invariant("plain", [](DecodeCase&) {});
  invariant("chunks", [](DecodeCase& c) { c.kv_len = {700, 65, 300, 320}, c.ragged_tokens = 12; });
  invariant("sink", [](DecodeCase& c) { c.kv_len = {1500, 70, 2, 64}, c.sink = Sink::kInfinite, c.h_q = 4; });
  invariant("prefill", [](DecodeCase& c) { c.kv_len = {200, 500, 9, 150}, set_offsets(c, {0, 100, 101, 101, 120}); });
}

void add_faults(Cases& cases) {
  auto const bad = [&cases](char const* name, int32_t tokens, int32_t bound, std::vector<int32_t> offsets) {
    add(cases, std::string("fault_") + name, [&](DecodeCase& c) {
      c.kv_len.resize(offsets.size() - 1);
      c.q_offsets = offsets, c.ragged_tokens = tokens, c.q_tokens = bound, c.causal = true;
    });
  };
  bad("falling", 7, 4, {4, 6, 2, 4});
  bad("negative", 5, 4, {-3, 2, 4});
  bad("beyond_q", 8, 4, {0, 3, 100, 100});
  bad("beyond_bound", 7, 4, {0, 5, 7});
  bad("extremes", 9, 4, {INT_MIN, INT_MAX, INT_MAX, INT_MIN});
  bad("last_beyond_q", 7, 5, {0, 1, 3, 3, 8});
  add(cases, "fault_length", [](DecodeCase& c) { c.kv_len = {70, 3, 129, 640}, c.table_pages = 3, c.causal = true; });
  add(cases, "fault_page", [](DecodeCase& c) { c.bad_pages = {{0, 1, -1}}, c.causal = true; });
  add(cases, "fault_visible_len", [](DecodeCase& c) { c.visible_len = {70, 3, 0, 64, -1, 0, 63, 64}; });
}

void add_sweeps(Cases& cases) {
  for (int32_t const h_q : {1, 5, 13, 33, 64, 127, 128})
    add(cases, "heads_" + std::to_string(h_q), [h_q](DecodeCase& c) {
      c.h_q = h_q, c.kv_len = {100, 64, 3, 200, 64, 70}, set_offsets(c, {0, 1, 18, 18, 23, 24, 26}), c.causal = true;
      c.ragged_tokens = 28;
    });
  for (int32_t const batch : {7, 33, 300})
    add(cases, "batch_" + std::to_string(batch), [=](DecodeCase& c) {
      c.h_q = 5, c.kv_len = random_numbers("ragged lengths", batch, 0, 300), c.causal = true;
      set_offsets(c, offsets_of(random_numbers("ragged tokens", batch, 0, 4)));
    });
  add(cases, "chunked_prefill_and_decode", [](DecodeCase& c) {
    c.kv_len = random_numbers("chunked", 9, 130, 900), c.causal = true;
    set_offsets(c, offsets_of({1, 1, 1, 128, 1, 0, 1, 31, 1}));
    c.ragged_tokens += 19;
  });
  add(cases, "speculative", [](DecodeCase& c) {
    c.kv_len = random_numbers("speculative", 12, 20, 1200), c.h_q = 128, c.causal = true;
    set_offsets(c, offsets_of({4, 1, 4, 2, 0, 3, 4, 1, 1, 4, 2, 4}));
  });
  add(cases, "batch_12000", [](DecodeCase& c) {
    c.kv_len = random_numbers("12000", 12000, 0, 5), c.h_q = 2;
    set_offsets(c, offsets_of(random_numbers("12000 tokens", 12000, 0, 2)));
  });
}

}  // namespace

std::vector<DecodeCase> ragged_cases(Tier tier) {
  Cases cases;
  add_options(cases);
  add_stale_schedules(cases);
  add_invariant(cases);
  add_faults(cases);
  if (tier != Tier::kSmoke) add_sweeps(cases);
  return cases;
}

}  // namespace flashmla::conformance
