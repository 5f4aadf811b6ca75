#include "reference/append.hpp"

#include <algorithm>
#include <limits>

namespace flashmla::reference {

std::vector<flashmla_fault> append(core::AppendCall const& call) {
  std::vector<flashmla_fault> found;
  uint16_t const* const ckv = static_cast<uint16_t const*>(call.ckv);  // [tokens, latent]
  uint16_t const* const kpe = static_cast<uint16_t const*>(call.kpe);  // [tokens, rope]
  uint16_t* const cache = static_cast<uint16_t*>(call.cache);          // [num_pages, page_tokens, latent + rope]

  for (int64_t token = 0; token < call.tokens; ++token) {
    int64_t const slot = call.slot_mapping[token];
    if (slot == -1) continue;
    if (slot < 0 || slot >= call.num_pages * call.page_tokens) {
      using Limits = std::numeric_limits<int32_t>;
      int32_t const saturated = static_cast<int32_t>(std::clamp<int64_t>(slot, Limits::min(), Limits::max()));
      found.push_back({FLASHMLA_FAULT_SLOT, 0, static_cast<int32_t>(token), saturated, {}});
      continue;
    }
    uint16_t* const target = cache + slot / call.page_tokens * call.page_stride + slot % call.page_tokens * call.token_stride;
    std::copy_n(ckv + token * call.ckv_token_stride, call.format->latent, target);
    std::copy_n(kpe + token * call.kpe_token_stride, call.format->rope, target + call.format->latent);
  }
  return found;
}

}  // namespace flashmla::reference
