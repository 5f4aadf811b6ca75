#include "conformance/random_case.hpp"

#include <algorithm>
#include <array>
#include <sstream>

#include "conformance/random.hpp"
#include "core/kv_format.hpp"

namespace flashmla::conformance {
namespace {

constexpr int64_t kMaxRows = 2048, kMaxKeyBytes = int64_t{20} << 20, kTokenBytes = 1152;
constexpr int64_t kMaxPageKeys = 4096;  // page_tokens * h_kv, so that even a call of one page is small

bool one_in(Random& random, int64_t n) { return random.below(n) == 0; }

template <class T, size_t kCount>
T one_of(Random& random, T const (&values)[kCount]) {
  return values[random.below(static_cast<int64_t>(kCount))];
}

void choose_heads(Random& random, DecodeCase& c) {
  constexpr int32_t kUsual[] = {1, 8, 16, 16, 20, 32, 64, 128, 128};
  c.h_q = one_in(random, 2) ? one_of(random, kUsual) : random.between(1, 128);
  constexpr int32_t kPages[] = {1, 2, 4, 8, 16, 32, 48, 64, 64, 64, 64, 80, 128, 256};
  c.page_tokens = one_of(random, kPages);
  if (!one_in(random, 3)) return;
  std::vector<int32_t> divisors;
  for (int32_t d = 1; d <= c.h_q && int64_t{d} * c.page_tokens <= kMaxPageKeys; ++d)
    if (c.h_q % d == 0) divisors.push_back(d);
  c.h_kv = divisors[static_cast<size_t>(random.below(static_cast<int64_t>(divisors.size())))];
}

/// Bytes of the cache that `DecodeInputs` makes.
int64_t key_bytes(DecodeCase const& c) {
  int64_t pages = 0;
  for (int32_t const length : c.kv_len) pages += (length + c.page_tokens - 1) / c.page_tokens;
  return (pages + pages / 4 + 3) * c.page_tokens * c.h_kv * kTokenBytes;
}

int32_t random_length(Random& random, DecodeCase const& c, int32_t longest) {
  int32_t const edges[] = {1, 63, 64, 65, 127, 128, 129, 192, c.page_tokens, c.page_tokens + 1, 2 * c.page_tokens, c.q_tokens};
  int64_t const kind = random.below(16);
  return kind < 2 ? 0 : kind < 4 ? one_of(random, edges) : random.between(0, longest);
}

/// Query tokens, batch and lengths: rows and keys stay within their bounds.
void choose_sizes(Random& random, DecodeCase& c) {
  c.q_tokens = one_in(random, 2) ? 1 : one_in(random, 25) ? random.between(9, 128) : random.between(1, 8);
  if (int64_t{c.q_tokens} * c.h_q > kMaxRows) c.q_tokens = static_cast<int32_t>(kMaxRows / c.h_q);
  int64_t const most = std::clamp<int64_t>(kMaxRows / c.q_tokens / c.h_q, 1, 24);
  auto const batch = static_cast<size_t>(one_in(random, 5) ? 1 : random.between(1, static_cast<int32_t>(most)));
  constexpr int32_t kLongest[] = {20, 70, 200, 600, 600, 600, 1200};
  int32_t const longest = one_of(random, kLongest);
  for (size_t i = 0; i < batch; ++i) c.kv_len.push_back(random_length(random, c, longest));
  if (one_in(random, 20)) c.kv_len[static_cast<size_t>(random.below(static_cast<int64_t>(batch)))] = random.between(600, 6000);
  while (key_bytes(c) > kMaxKeyBytes) {
    if (c.kv_len.size() > 1) c.kv_len.pop_back();
    else c.kv_len[0] /= 2;
  }
}

/// Offsets of up to q_tokens query tokens a request, some of none, behind up to `lead` tokens of nobody.
std::vector<int32_t> random_offsets(Random& random, DecodeCase const& c, int32_t lead) {
  std::vector<int32_t> offsets{random.between(0, lead)};
  for (int64_t i = 0; i < c.batch(); ++i)
    offsets.push_back(offsets.back() + (one_in(random, 4) ? 0 : one_in(random, 3) ? 1 : random.between(0, c.q_tokens)));
  return offsets;
}

void choose_ragged(Random& random, DecodeCase& c) {
  if (c.q_tokens == 1 || !one_in(random, 3)) return;
  c.q_offsets = random_offsets(random, c, one_in(random, 4) ? 3 : 0);
  c.ragged_tokens = c.q_offsets.back() + (one_in(random, 3) ? random.between(0, 5) : 0);
}

void choose_mask_and_faults(Random& random, DecodeCase& c) {
  c.causal = one_in(random, 2);
  if (one_in(random, 8)) {
    int32_t const longest = *std::max_element(c.kv_len.begin(), c.kv_len.end());
    for (int64_t t = 0; t < c.total_q(); ++t)
      c.visible_len.push_back(random.between(0, c.is_ragged() ? longest : c.kv_len[static_cast<size_t>(t / c.q_tokens)]));
  } else if (one_in(random, 30)) {
    auto const request = static_cast<int32_t>(random.below(c.batch()));
    int32_t const length = c.kv_len[static_cast<size_t>(request)];
    constexpr int32_t kNoPages[] = {-1, 2147480000, INT32_MIN, INT32_MAX};
    if (length > 0) c.bad_pages = {{request, random.between(0, (length - 1) / c.page_tokens), one_of(random, kNoPages)}};
  }
}

void choose_options(Random& random, DecodeCase& c) {
  constexpr flashmla_kv_format kFormats[] = {FLASHMLA_KV_BF16_576, FLASHMLA_KV_BF16_576, FLASHMLA_KV_FP16_576,
                                             FLASHMLA_KV_FP16_576, FLASHMLA_KV_BF16_320, FLASHMLA_KV_BF16_288};
  c.format = one_of(random, kFormats);
  constexpr flashmla_dtype kOuts[] = {FLASHMLA_DTYPE_NONE, FLASHMLA_DTYPE_NONE, FLASHMLA_DTYPE_NONE,
                                      FLASHMLA_BF16,       FLASHMLA_FP16,       FLASHMLA_FP32};
  c.out_dtype = one_of(random, kOuts);
  constexpr float kScales[] = {0.0f, 0.02f, 0.05f};
  if (one_in(random, 4)) c.scale = one_of(random, kScales);
  constexpr float kDeviations[] = {10, 10, 10, 3, 0.1f};
  c.q_std = one_of(random, kDeviations);
  c.lse_base = one_in(random, 3) ? FLASHMLA_LSE_BASE_2 : FLASHMLA_LSE_NATURAL;
  c.lse_layout = one_in(random, 3) ? FLASHMLA_LSE_TOKENS_HEADS : FLASHMLA_LSE_BATCH_HEADS_TOKENS;
  c.empty_row = one_in(random, 3) ? FLASHMLA_EMPTY_LSE_MINUS_INF : FLASHMLA_EMPTY_LSE_PLUS_INF;
  c.sink = one_in(random, 3) ? one_in(random, 3) ? Sink::kInfinite : Sink::kFinite : Sink::kNone;
  c.want_lse = !one_in(random, 8);
  if (one_in(random, 3)) c.spare_batch = random.between(1, 9);
  if (one_in(random, 6)) c.max_kv_len = *std::max_element(c.kv_len.begin(), c.kv_len.end());
}

void choose_layout(Random& random, DecodeCase& c) {
  constexpr QLayout kQueries[] = {QLayout::kContiguous, QLayout::kContiguous, QLayout::kPadded, QLayout::kUnaligned, QLayout::kPair};
  c.q_layout = one_of(random, kQueries);
  constexpr CacheLayout kCaches[] = {CacheLayout::kContiguous, CacheLayout::kContiguous, CacheLayout::kPaddedPages,
                                     CacheLayout::kPaddedPages, CacheLayout::kPair};
  c.cache_layout = one_in(random, 20) ? CacheLayout::kPaddedTokens : one_of(random, kCaches);
  c.rank3_cache = c.h_kv == 1 && one_in(random, 4);
  c.padded_out = one_in(random, 4);
  if (!one_in(random, 4)) return;
  int32_t const longest = *std::max_element(c.kv_len.begin(), c.kv_len.end());
  c.table_pages = (longest + c.page_tokens - 1) / c.page_tokens + random.between(0, 300);
  c.table_pages = std::max<int64_t>(c.table_pages, 1);
}

/// One in five follows a schedule that was made for other lengths.
void choose_schedule(Random& random, DecodeCase& c) {
  if (!one_in(random, 5)) return;
  constexpr int32_t kLongest[] = {0, 100, 1000, 20000};
  int32_t const longest = one_of(random, kLongest);
  for (int32_t const length : c.kv_len)
    c.schedule_lengths.push_back(one_in(random, 3) ? std::max(length - 1, 0) : random.between(0, longest));
  if (c.is_ragged() && one_in(random, 2)) c.schedule_q_offsets = random_offsets(random, c, 0);
}

template <class E, size_t kCount>
char const* name_of(std::array<char const*, kCount> const& names, E value) {
  return names.at(static_cast<size_t>(value));
}

}  // namespace

DecodeCase random_case(uint64_t seed) {
  DecodeCase c;
  c.name = "random." + std::to_string(seed);
  Random random(seed_of(c.name.c_str()) + 4);
  choose_heads(random, c);
  choose_sizes(random, c);
  choose_ragged(random, c);
  choose_mask_and_faults(random, c);
  choose_options(random, c);
  choose_layout(random, c);
  choose_schedule(random, c);
  return c;
}

std::string text_of(DecodeCase const& c) {
  constexpr std::array<char const*, 4> kQueries = {"contiguous", "padded", "unaligned", "a pair"};
  constexpr std::array<char const*, 5> kCaches = {"contiguous", "padded pages", "padded tokens", "unaligned", "a pair"};
  constexpr std::array<char const*, 3> kSinks = {"", ", sink", ", sink with infinities"};
  std::ostringstream text;
  text << core::find_kv_format(c.format)->name << " to dtype " << c.out_dtype << ", h_q " << c.h_q << ", h_kv " << c.h_kv << ", page "
       << c.page_tokens << ", q_tokens " << c.q_tokens << ", batch " << c.batch() << " of " << c.batch() + c.spare_batch
       << (c.causal ? ", causal" : "") << (c.visible_len.empty() ? "" : ", visible_len") << name_of(kSinks, c.sink)
       << (c.scale ? ", scale " + std::to_string(*c.scale) : "") << ", q " << name_of(kQueries, c.q_layout) << ", cache "
       << name_of(kCaches, c.cache_layout) << (c.padded_out ? ", out padded" : "") << (c.want_lse ? "" : ", no lse")
       << (c.lse_base == FLASHMLA_LSE_BASE_2 ? ", base 2" : "") << (c.lse_layout == FLASHMLA_LSE_TOKENS_HEADS ? ", tokens x heads" : "");
  if (c.max_kv_len > 0) text << ", max_kv_len " << c.max_kv_len;
  if (c.table_pages > 0) text << ", table of " << c.table_pages;
  for (BadPage const& bad : c.bad_pages) text << ", page " << bad.entry << " of request " << bad.request << " is " << bad.id;
  text << ", lengths";
  for (int32_t const length : c.kv_len) text << ' ' << length;
  if (!c.schedule_lengths.empty()) text << ", schedule of lengths";
  for (int32_t const length : c.schedule_lengths) text << ' ' << length;
  if (c.is_ragged()) text << ", " << c.ragged_tokens << " query tokens at";
  for (int32_t const offset : c.q_offsets) text << ' ' << offset;
  if (!c.schedule_q_offsets.empty()) text << ", schedule of those at";
  for (int32_t const offset : c.schedule_q_offsets) text << ' ' << offset;
  return text.str();
}

}  // namespace flashmla::conformance
