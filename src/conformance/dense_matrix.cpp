// Upstream's matrix of dense decode, with its poison: pages padded apart, every other case with queries that are not
// contiguous.
#include <algorithm>

#include "conformance/decode_case.hpp"
#include "conformance/random.hpp"

namespace flashmla::conformance {
namespace {

constexpr int32_t kBatches[] = {1, 2, 6, 64};
constexpr int32_t kQTokens[] = {1, 2, 4};
constexpr int32_t kLengths[] = {20, 140, 4096};
constexpr int32_t kHeads[] = {1, 3, 9, 63, 64, 126, 128};
constexpr int32_t kKvHeads[] = {1, 2, 3, 8};

/// FLOP that a tier spends on one case; a case of full takes up to 36 GFLOP * q tokens.
constexpr double kCiFlop = 6e9;

std::vector<int32_t> lengths(DecodeCase const& c, int32_t batch, int32_t mean, bool varlen) {
  std::vector<int32_t> kv_len(static_cast<size_t>(batch), mean);
  Random random(seed_of(c.name.c_str()) + 2);
  if (varlen)
    for (int32_t& len : kv_len) len = random.between(c.q_tokens, 2 * mean - c.q_tokens);
  return kv_len;
}

DecodeCase matrix_case(int32_t batch, int32_t q_tokens, int32_t len, int32_t h_q, int32_t h_kv, int variant) {
  bool const varlen = (variant & 1) != 0, causal = (variant & 2) != 0;
  DecodeCase c;
  c.name = "dense.b" + std::to_string(batch) + ".sq" + std::to_string(q_tokens) + ".len" + std::to_string(len) + ".hq" +
           std::to_string(h_q) + ".hkv" + std::to_string(h_kv) + (varlen ? ".varlen" : "") + (causal ? ".causal" : "");
  c.h_q = h_q;
  c.h_kv = h_kv;
  c.q_tokens = q_tokens;
  c.causal = causal;
  c.kv_len = lengths(c, batch, len, varlen);
  c.cache_layout = CacheLayout::kPaddedPages;
  if (varlen) c.q_layout = QLayout::kPadded;
  return c;
}

double flop(DecodeCase const& c) {
  double tokens = 0;
  for (int32_t const len : c.kv_len) tokens += std::max(len, 0);
  return 2.0 * (576 + 512) * c.h_q * c.q_tokens * tokens;
}

}  // namespace

std::vector<DecodeCase> dense_matrix() {
  std::vector<DecodeCase> cases;
  for (int32_t const batch : kBatches)
    for (int32_t const q_tokens : kQTokens)
      for (int32_t const len : kLengths)
        for (int32_t const h_q : kHeads)
          for (int32_t const h_kv : kKvHeads)
            for (int variant = 0; h_q % h_kv == 0 && variant < 4; ++variant)
              cases.push_back(matrix_case(batch, q_tokens, len, h_q, h_kv, variant));
  return cases;
}

bool runs_in(Tier tier, DecodeCase const& c) {
  if (tier == Tier::kFull) return true;
  if (tier == Tier::kCi) return flop(c) <= kCiFlop;
  return c.batch() == 2 && c.q_tokens == 2 && c.kv_len[0] < 200 && (c.h_q == 9 || (c.h_q == 64 && c.h_kv == 1));
}

}  // namespace flashmla::conformance
