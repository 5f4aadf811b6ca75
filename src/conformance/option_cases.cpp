// Our own cases of dense decode: one option at a time on a small call, then sweeps over sizes, then calls as engines
// make them. Each list returns cases in BF16; FP16 and FP32 twins are made at the end, FP32 but for the largest cache.
#include <climits>
#include <numeric>

#include "conformance/decode_case.hpp"
#include "conformance/random.hpp"

namespace flashmla::conformance {
namespace {

using Cases = std::vector<DecodeCase>;

/// A small call with a full page, a partial page, one token and a page and one.
DecodeCase small(std::string name) {
  DecodeCase c;
  c.name = std::move(name);
  c.kv_len = {70, 1, 129, 64};
  return c;
}

/// Adds `small(name)` after `change` was made to it.
template <class Change>
void add(Cases& cases, std::string name, Change const& change) {
  cases.push_back(small(std::move(name)));
  change(cases.back());
}

std::vector<int32_t> repeated(std::vector<int32_t> const& pattern, int32_t times) {
  std::vector<int32_t> all;
  for (int32_t i = 0; i < times; ++i) all.insert(all.end(), pattern.begin(), pattern.end());
  return all;
}

std::vector<int32_t> random_lengths(char const* seed, int32_t batch, int32_t first, int32_t last) {
  Random random(seed_of(seed));
  std::vector<int32_t> kv_len(static_cast<size_t>(batch));
  for (int32_t& len : kv_len) len = random.between(first, last);
  return kv_len;
}

Cases math_cases() {
  Cases cases;
  add(cases, "plain", [](DecodeCase&) {});
  add(cases, "uniform_scores", [](DecodeCase& c) { c.q_std = 0.1f; });
  add(cases, "peaked_scores", [](DecodeCase& c) { c.q_std = 40; });
  // The running maximum of a kernel moves again and again, or not after the first tile, or lies so low that negative scores move it.
  add(cases, "rising_scores", [](DecodeCase& c) { c.first_score = -12, c.last_score = 3, c.kv_len = {1500, 70, 640, 64}; });
  add(cases, "rising_scores_128_heads", [](DecodeCase& c) { c.first_score = -12, c.last_score = 3, c.kv_len = {1500, 64}, c.h_q = 128; });
  add(cases, "rising_scores_page_16",
      [](DecodeCase& c) { c.first_score = -12, c.last_score = 3, c.kv_len = {1500, 70}, c.page_tokens = 16; });
  add(cases, "falling_scores", [](DecodeCase& c) { c.first_score = 3, c.last_score = -12, c.kv_len = {1500, 70, 640, 64}; });
  add(cases, "low_scores", [](DecodeCase& c) { c.first_score = c.last_score = -6.2f, c.q_std = 0.1f, c.kv_len = {130, 70, 1}; });
  add(cases, "low_rising_scores_causal",
      [](DecodeCase& c) { c.first_score = -14, c.last_score = -8, c.kv_len = {700, 70, 130}, c.q_tokens = 3, c.causal = true; });
  add(cases, "scale_zero", [](DecodeCase& c) { c.scale = 0.0f; });
  add(cases, "scale_zero_causal", [](DecodeCase& c) { c.scale = 0.0f, c.causal = true, c.q_tokens = 3; });
  add(cases, "scale_given", [](DecodeCase& c) { c.scale = 0.1147213867929261f; });
  add(cases, "causal", [](DecodeCase& c) { c.causal = true, c.q_tokens = 3, c.kv_len = {70, 3, 129, 66}; });
  add(cases, "not_causal_q_tokens", [](DecodeCase& c) { c.q_tokens = 3; });
  add(cases, "causal_longer_than_cache", [](DecodeCase& c) { c.causal = true, c.q_tokens = 5, c.kv_len = {2, 0, 5, 66}; });
  add(cases, "zero_lengths", [](DecodeCase& c) { c.kv_len = {0, 70, 0, 0, 5, 0}; });
  add(cases, "zero_lengths_minus_inf", [](DecodeCase& c) { c.kv_len = {0, 70, 0}, c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF; });
  add(cases, "all_zero_lengths", [](DecodeCase& c) { c.kv_len = {0, 0, 0}, c.q_tokens = 2; });
  add(cases, "visible_len", [](DecodeCase& c) { c.q_tokens = 2, c.visible_len = {0, 70, 1, 0, 63, 128, 64, 1}; });
  add(cases, "visible_len_replaces_causal",
      [](DecodeCase& c) { c.q_tokens = 2, c.causal = true, c.visible_len = {70, 3, 1, 1, 129, 129, 2, 64}; });
  add(cases, "sink", [](DecodeCase& c) { c.sink = Sink::kFinite; });
  add(cases, "sink_infinite", [](DecodeCase& c) { c.sink = Sink::kInfinite; });
  add(cases, "sink_on_empty_rows", [](DecodeCase& c) { c.sink = Sink::kFinite, c.kv_len = {0, 70, 1}, c.q_tokens = 2, c.causal = true; });
  add(cases, "sink_base_2", [](DecodeCase& c) { c.sink = Sink::kFinite, c.lse_base = FLASHMLA_LSE_BASE_2; });
  add(cases, "split", [](DecodeCase& c) { c.kv_len = {3001, 1}, c.h_q = 4; });
  add(cases, "split_causal_sink",
      [](DecodeCase& c) { c.kv_len = {1, 1500}, c.h_q = 4, c.q_tokens = 2, c.causal = true, c.sink = Sink::kFinite; });
  return cases;
}

Cases output_cases() {
  Cases cases;
  add(cases, "out_fp32", [](DecodeCase& c) { c.out_dtype = FLASHMLA_FP32; });
  add(cases, "out_bf16", [](DecodeCase& c) { c.out_dtype = FLASHMLA_BF16; });
  add(cases, "out_fp16", [](DecodeCase& c) { c.out_dtype = FLASHMLA_FP16; });
  add(cases, "out_fp32_split", [](DecodeCase& c) { c.out_dtype = FLASHMLA_FP32, c.kv_len = {1500, 1}, c.h_q = 3; });
  add(cases, "out_padded", [](DecodeCase& c) { c.padded_out = true, c.q_tokens = 2; });
  add(cases, "out_padded_fp32", [](DecodeCase& c) { c.padded_out = true, c.out_dtype = FLASHMLA_FP32; });
  add(cases, "lse_absent", [](DecodeCase& c) { c.want_lse = false; });
  add(cases, "lse_absent_sink", [](DecodeCase& c) { c.want_lse = false, c.sink = Sink::kFinite; });
  add(cases, "lse_base_2", [](DecodeCase& c) { c.lse_base = FLASHMLA_LSE_BASE_2, c.q_tokens = 2; });
  add(cases, "lse_tokens_heads",
      [](DecodeCase& c) { c.lse_layout = FLASHMLA_LSE_TOKENS_HEADS, c.q_tokens = 3, c.causal = true, c.kv_len = {70, 2, 129}; });
  add(cases, "lse_base_2_tokens_heads_minus_inf", [](DecodeCase& c) {
    c.lse_base = FLASHMLA_LSE_BASE_2, c.lse_layout = FLASHMLA_LSE_TOKENS_HEADS, c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
    c.q_tokens = 2, c.kv_len = {70, 0, 129};
  });
  return cases;
}

Cases layout_cases() {
  Cases cases;
  add(cases, "q_padded", [](DecodeCase& c) { c.q_layout = QLayout::kPadded, c.q_tokens = 2; });
  add(cases, "q_unaligned", [](DecodeCase& c) { c.q_layout = QLayout::kUnaligned, c.q_tokens = 2; });
  add(cases, "q_pair", [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.q_tokens = 2; });
  add(cases, "cache_padded_pages", [](DecodeCase& c) { c.cache_layout = CacheLayout::kPaddedPages; });
  add(cases, "cache_padded_tokens", [](DecodeCase& c) { c.cache_layout = CacheLayout::kPaddedTokens; });
  add(cases, "cache_unaligned", [](DecodeCase& c) { c.cache_layout = CacheLayout::kUnaligned; });
  add(cases, "cache_pair", [](DecodeCase& c) { c.cache_layout = CacheLayout::kPair; });
  add(cases, "cache_pair_heads", [](DecodeCase& c) { c.cache_layout = CacheLayout::kPair, c.h_kv = 2; });
  add(cases, "cache_rank_3", [](DecodeCase& c) { c.rank3_cache = true; });
  add(cases, "pairs_page_1",
      [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.cache_layout = CacheLayout::kPair, c.page_tokens = 1, c.rank3_cache = true; });
  for (int32_t const page : {1, 2, 16, 32, 48, 128, 256})
    add(cases, "page_" + std::to_string(page), [page](DecodeCase& c) { c.page_tokens = page; });
  add(cases, "page_16_padded_heads",
      [](DecodeCase& c) { c.page_tokens = 16, c.cache_layout = CacheLayout::kPaddedPages, c.h_kv = 2, c.h_q = 6; });
  for (int32_t const h_kv : {2, 8, 16}) add(cases, "h_kv_" + std::to_string(h_kv), [h_kv](DecodeCase& c) { c.h_kv = h_kv; });
  add(cases, "h_kv_3_causal", [](DecodeCase& c) { c.h_kv = 3, c.h_q = 9, c.q_tokens = 2, c.causal = true; });
  add(cases, "wide_table", [](DecodeCase& c) { c.table_pages = 1000; });
  add(cases, "table_just_fits", [](DecodeCase& c) { c.table_pages = 3; });
  return cases;
}

Cases schedule_cases() {
  Cases cases;
  auto const stale = [&cases](char const* name, std::vector<int32_t> made_for) {
    add(cases, std::string("stale_schedule_") + name,
        [&](DecodeCase& c) { c.kv_len = {700, 1, 129, 64}, c.h_q = 4, c.schedule_lengths = made_for; });
  };
  stale("longer", {3000, 500, 800, 1000});
  stale("shorter", {100, 1, 3, 5});
  stale("one_step_back", {699, 0, 128, 63});
  stale("zero", {0, 0, 0, 0});
  stale("permuted", {1, 64, 700, 129});
  stale("much_longer", {1000000, 1, 1, 1});
  stale("negative", {-1, INT_MIN, 5, 5});
  add(cases, "stale_schedule_now_zero", [](DecodeCase& c) { c.kv_len = {0, 0, 70}, c.schedule_lengths = {700, 129, 0}; });
  add(cases, "schedule_of_another_batch", [](DecodeCase& c) { c.schedule_lengths = {70, 1}, c.spare_batch = 4; });
  add(cases, "schedule_of_a_larger_batch", [](DecodeCase& c) { c.schedule_lengths = {70, 1, 129, 64, 9, 9}, c.spare_batch = 4; });
  add(cases, "schedule_never_made", [](DecodeCase& c) { c.update_schedule = false; });
  add(cases, "batch_below_maximum", [](DecodeCase& c) { c.spare_batch = 300; });
  add(cases, "many_runs", [](DecodeCase& c) { c.runs = 6, c.kv_len = {900, 0, 3}, c.h_q = 3; });
  auto const invariant = [&cases](char const* name, auto const& change) {
    add(cases, name == std::string() ? "batch_invariant" : std::string("batch_invariant_") + name, [&](DecodeCase& c) {
      c.batch_invariant = true;
      change(c);
    });
  };
  invariant("", [](DecodeCase&) {});
  invariant("chunks", [](DecodeCase& c) { c.chunk_tokens = 64, c.kv_len = {700, 1, 129, 64, 0, 65, 320}; });
  invariant("causal_sink", [](DecodeCase& c) {
    c.chunk_tokens = 64, c.h_q = 4, c.kv_len = {1500, 70, 2}, c.q_tokens = 3, c.causal = true, c.sink = Sink::kInfinite;
  });
  invariant("stale_shorter", [](DecodeCase& c) { c.chunk_tokens = 128, c.kv_len = {900, 1, 300}, c.schedule_lengths = {100, 900, 1}; });
  invariant("stale_longer", [](DecodeCase& c) { c.chunk_tokens = 64, c.kv_len = {200, 0, 64}, c.schedule_lengths = {9000, 3000, 640}; });
  invariant("visible_len", [](DecodeCase& c) {
    c.chunk_tokens = 64, c.kv_len = {400, 300}, c.q_tokens = 2, c.visible_len = {400, 3, 0, 65}, c.out_dtype = FLASHMLA_FP32;
  });
  invariant("bad_page", [](DecodeCase& c) { c.chunk_tokens = 64, c.kv_len = {200, 300}, c.bad_pages = {{1, 2, -1}}; });
  return cases;
}

Cases fault_cases() {
  Cases cases;
  add(cases, "length_beyond_table", [](DecodeCase& c) { c.kv_len = {70, 140, 64}, c.table_pages = 2; });
  add(cases, "length_huge", [](DecodeCase& c) { c.kv_len = {70, INT_MAX, 64}, c.table_pages = 3; });
  add(cases, "length_beyond_declared", [](DecodeCase& c) { c.kv_len = {70, 140, 64}, c.max_kv_len = 100; });
  add(cases, "length_beyond_declared_causal",
      [](DecodeCase& c) { c.kv_len = {70, 140, 64}, c.max_kv_len = 65, c.q_tokens = 3, c.causal = true; });
  add(cases, "length_negative", [](DecodeCase& c) { c.kv_len = {70, -5, 64}; });
  add(cases, "length_lowest", [](DecodeCase& c) { c.kv_len = {INT_MIN, 64}, c.q_tokens = 3, c.causal = true; });
  add(cases, "length_beyond_table_causal", [](DecodeCase& c) { c.kv_len = {140, 3}, c.table_pages = 1, c.q_tokens = 3, c.causal = true; });
  for (int32_t const id : {-1, 2147480000, INT_MIN, INT_MAX})
    add(cases, "page_id_" + std::to_string(id), [id](DecodeCase& c) { c.bad_pages = {{2, 1, id}}; });
  add(cases, "first_page", [](DecodeCase& c) { c.bad_pages = {{2, 0, -1}}; });
  add(cases, "every_page", [](DecodeCase& c) { c.bad_pages = {{0, 0, -1}, {0, 1, 2147480000}}; });
  add(cases, "only_page",
      [](DecodeCase& c) { c.bad_pages = {{1, 0, -7}}, c.sink = Sink::kFinite, c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF; });
  add(cases, "page_causal", [](DecodeCase& c) { c.bad_pages = {{0, 1, -1}}, c.kv_len = {66, 130}, c.q_tokens = 4, c.causal = true; });
  add(cases, "page_16", [](DecodeCase& c) { c.bad_pages = {{2, 3, -1}, {2, 8, INT_MAX}}, c.page_tokens = 16; });
  add(cases, "pages_split", [](DecodeCase& c) { c.bad_pages = {{0, 5, -1}, {0, 20, -2}}, c.kv_len = {1500, 9}, c.h_q = 3; });
  add(cases, "visible_len_negative", [](DecodeCase& c) { c.visible_len = {70, -3, 129, 64}; });
  add(cases, "visible_len_beyond", [](DecodeCase& c) { c.q_tokens = 2, c.visible_len = {70, 70, 1, 1, 129, 4, 65, 64}; });
  return cases;
}

/// Sizes where tiles, pages and vectors end.
Cases sweep_cases() {
  Cases cases;
  std::vector<int32_t> every(131);
  std::iota(every.begin(), every.end(), 0);
  for (int32_t const page : {1, 16, 64, 69})
    add(cases, "every_length_page_" + std::to_string(page), [&](DecodeCase& c) { c.kv_len = every, c.h_q = 3, c.page_tokens = page; });
  add(cases, "every_length_causal", [&](DecodeCase& c) { c.kv_len = every, c.h_q = 2, c.q_tokens = 4, c.causal = true; });
  for (int32_t h_q = 1; h_q <= 128; ++h_q)
    add(cases, "heads_" + std::to_string(h_q), [h_q](DecodeCase& c) { c.h_q = h_q, c.kv_len = {33, 100, 0}; });
  for (int32_t const h_q : {1, 13, 21, 33, 64, 65, 127, 128})
    for (int32_t const q_tokens : {2, 3, 5, 17})
      add(cases, "heads_" + std::to_string(h_q) + "_q_tokens_" + std::to_string(q_tokens),
          [=](DecodeCase& c) { c.h_q = h_q, c.q_tokens = q_tokens, c.causal = true, c.kv_len = {100, 64, 3}; });
  for (int32_t const q_tokens : {32, 64, 128})
    add(cases, "q_tokens_" + std::to_string(q_tokens),
        [=](DecodeCase& c) { c.h_q = 8, c.q_tokens = q_tokens, c.causal = true, c.kv_len = {200, 64, 130}; });
  for (int32_t const batch : {1, 7, 33, 300})
    add(cases, "batch_" + std::to_string(batch), [=](DecodeCase& c) { c.h_q = 5, c.kv_len = random_lengths("batch", batch, 0, 300); });
  for (int32_t const batch : {128})
    for (int32_t const h_q : {1, 16, 128})
      for (int32_t const q_tokens : {1, 2})
        add(cases, "zeros_b" + std::to_string(batch) + "_sq" + std::to_string(q_tokens) + "_hq" + std::to_string(h_q), [=](DecodeCase& c) {
          c.h_q = h_q, c.q_tokens = q_tokens, c.causal = q_tokens > 1, c.kv_len = repeated({0, 140, 0, 20, 64, 0, 333, 1}, batch / 8);
        });
  return cases;
}

/// Calls as engines make them.
Cases engine_cases() {
  Cases cases;
  add(cases, "tp8_two_tokens", [](DecodeCase& c) { c.kv_len = random_lengths("tp8", 8, 300, 1800), c.q_tokens = 2, c.causal = true; });
  add(cases, "dp_h128", [](DecodeCase& c) { c.kv_len = random_lengths("dp", 4, 300, 1500), c.h_q = 128; });
  add(cases, "page_1_pairs", [](DecodeCase& c) {
    c.kv_len = random_lengths("page1", 5, 1, 900), c.page_tokens = 1, c.q_layout = QLayout::kPair, c.cache_layout = CacheLayout::kPair;
    c.rank3_cache = true, c.lse_base = FLASHMLA_LSE_BASE_2, c.lse_layout = FLASHMLA_LSE_TOKENS_HEADS,
    c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  });
  add(cases, "context_parallel_rank", [](DecodeCase& c) {
    c.kv_len = {800, 700, 5}, c.q_tokens = 2, c.visible_len = {799, 800, 350, 350, 0, 0}, c.out_dtype = FLASHMLA_FP32;
    c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  });
  add(cases, "short_prefill", [](DecodeCase& c) { c.kv_len = {128, 500}, c.q_tokens = 128, c.h_q = 16, c.causal = true; });
  add(cases, "one_long_request", [](DecodeCase& c) { c.kv_len = {100000}, c.h_q = 2; });
  add(cases, "skewed", [](DecodeCase& c) { c.kv_len = {20000, 1, 0, 5, 300}, c.h_q = 8; });
  add(cases, "batch_12000", [](DecodeCase& c) { c.kv_len = random_lengths("12000", 12000, 0, 5), c.h_q = 2, c.page_tokens = 64; });
  return cases;
}

Cases huge_cases() {
  Cases cases;
  // 60,000 pages of 64 tokens: offsets past 2^31 elements, a cache of 4.4 GB.
  add(cases, "far_pages", [](DecodeCase& c) { c.low_pages = 60000; });
  add(cases, "one_million_tokens", [](DecodeCase& c) { c.kv_len = {1000000, 3}, c.h_q = 16; });
  add(cases, "batch_64_h128_skewed",
      [](DecodeCase& c) { c.kv_len = random_lengths("skewed", 64, 0, 8000), c.h_q = 128, c.q_tokens = 2, c.causal = true; });
  return cases;
}

/// BF16 caches with keys of 320 or 288 numbers. The formats of 576 have proved the options; these are about widths.
Cases short_key_cases(Tier tier) {
  Cases cases;
  add(cases, "plain", [](DecodeCase&) {});
  for (int32_t const h_q : {1, 3, 12, 33, 128})
    add(cases, "heads_" + std::to_string(h_q), [h_q](DecodeCase& c) { c.h_q = h_q, c.kv_len = {33, 100, 0}; });
  for (int32_t const page : {1, 16, 48, 256}) add(cases, "page_" + std::to_string(page), [page](DecodeCase& c) { c.page_tokens = page; });
  add(cases, "causal", [](DecodeCase& c) { c.causal = true, c.q_tokens = 3, c.kv_len = {70, 3, 129, 66}; });
  add(cases, "h_kv_2", [](DecodeCase& c) { c.h_kv = 2, c.h_q = 6, c.q_tokens = 2, c.causal = true; });
  add(cases, "pairs", [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.cache_layout = CacheLayout::kPair, c.page_tokens = 1; });
  add(cases, "pairs_heads",
      [](DecodeCase& c) { c.q_layout = QLayout::kPair, c.cache_layout = CacheLayout::kPair, c.h_kv = 2, c.h_q = 40; });
  add(cases, "padded", [](DecodeCase& c) {
    c.q_layout = QLayout::kPadded, c.cache_layout = CacheLayout::kPaddedTokens, c.padded_out = true, c.out_dtype = FLASHMLA_FP32;
  });
  add(cases, "unaligned", [](DecodeCase& c) { c.q_layout = QLayout::kUnaligned, c.cache_layout = CacheLayout::kUnaligned, c.h_q = 20; });
  add(cases, "rising_scores", [](DecodeCase& c) { c.first_score = -12, c.last_score = 3, c.kv_len = {1500, 70, 640, 64}; });
  add(cases, "scale_zero", [](DecodeCase& c) { c.scale = 0.0f; });
  add(cases, "split_sink", [](DecodeCase& c) { c.kv_len = {1500, 1}, c.h_q = 4, c.sink = Sink::kInfinite; });
  add(cases, "bad_page", [](DecodeCase& c) { c.bad_pages = {{2, 1, -1}}; });
  for (int32_t const page : {1, 16})
    add(cases, "bad_page_pairs_page_" + std::to_string(page),
        [page](DecodeCase& c) { c.bad_pages = {{2, 1, -1}}, c.page_tokens = page, c.cache_layout = CacheLayout::kPair; });
  add(cases, "ragged",
      [](DecodeCase& c) { c.q_tokens = 9, c.causal = true, c.h_q = 20, c.q_offsets = {0, 1, 1, 10, 13}, c.ragged_tokens = 15; });
  add(cases, "batch_invariant",
      [](DecodeCase& c) { c.batch_invariant = true, c.chunk_tokens = 64, c.kv_len = {700, 1, 129, 64, 0, 65, 320}; });
  if (tier == Tier::kSmoke) return cases;
  std::vector<int32_t> every(131);
  std::iota(every.begin(), every.end(), 0);
  add(cases, "every_length", [&](DecodeCase& c) { c.kv_len = every, c.h_q = 3, c.page_tokens = 16; });
  for (int32_t const h_q : {2, 5, 8, 13, 16, 17, 31, 32, 47, 64, 127})
    add(cases, "heads_" + std::to_string(h_q) + "_q_tokens_2",
        [h_q](DecodeCase& c) { c.h_q = h_q, c.q_tokens = 2, c.causal = true, c.kv_len = {100, 64, 3}; });
  add(cases, "skewed", [](DecodeCase& c) { c.kv_len = {20000, 1, 0, 5, 300}, c.h_q = 8; });
  add(cases, "split_heads_128", [](DecodeCase& c) { c.kv_len = {4000, 70}, c.h_q = 128, c.page_tokens = 16; });
  add(cases, "tp40", [](DecodeCase& c) { c.kv_len = random_lengths("tp40", 8, 300, 1800), c.h_q = 40, c.q_tokens = 2, c.causal = true; });
  return cases;
}

void append_short_keys(Cases& cases, char const* prefix, flashmla_kv_format format, Tier tier) {
  for (DecodeCase& c : short_key_cases(tier)) {
    c.name.insert(0, prefix);
    c.format = format;
    cases.push_back(std::move(c));
  }
}

void append(Cases& cases, char const* prefix, Cases more) {
  for (DecodeCase& c : more) {
    c.name.insert(0, prefix);
    cases.push_back(c);
    c.name += ".fp16";
    c.format = FLASHMLA_KV_FP16_576;
    cases.push_back(c);
    c.name.replace(c.name.size() - 2, 2, "32");
    c.format = FLASHMLA_KV_FP32_576;
    if (c.low_pages == 0) cases.push_back(std::move(c));
  }
}

}  // namespace

std::vector<DecodeCase> option_cases(Tier tier) {
  Cases cases;
  append(cases, "math.", math_cases());
  append(cases, "output.", output_cases());
  append(cases, "layout.", layout_cases());
  append(cases, "schedule.", schedule_cases());
  append(cases, "fault.", fault_cases());
  append(cases, "ragged.", ragged_cases(tier));
  append_short_keys(cases, "bf16_320.", FLASHMLA_KV_BF16_320, tier);
  append_short_keys(cases, "bf16_288.", FLASHMLA_KV_BF16_288, tier);
  if (tier == Tier::kSmoke) return cases;
  append(cases, "sweep.", sweep_cases());
  append(cases, "engine.", engine_cases());
  if (tier == Tier::kFull) append(cases, "huge.", huge_cases());
  return cases;
}

std::vector<DecodeCase> decode_cases(Tier tier) {
  Cases cases = option_cases(tier);
  for (DecodeCase& c : dense_matrix())
    if (runs_in(tier, c)) cases.push_back(std::move(c));
  return cases;
}

}  // namespace flashmla::conformance
