#include "reference/append.hpp"

#include <algorithm>
#include <limits>

#include "reference/scalar.hpp"

namespace flashmla::reference {

std::vector<flashmla_fault> append(core::AppendCall const& call) {
  std::vector<flashmla_fault> found;
  int64_t const bytes = static_cast<int64_t>(element_bytes(call.format->dtype));
  char const* const ckv = static_cast<char const*>(call.ckv);  // [tokens, latent]
  char const* const kpe = static_cast<char const*>(call.kpe);  // [tokens, rope]
  char* const cache = static_cast<char*>(call.cache);          // [num_pages, page_tokens, latent + rope]

  for (int64_t token = 0; token < call.tokens; ++token) {
    int64_t const slot = call.slot_mapping[token];
    if (slot == -1) continue;
    if (slot < 0 || slot >= call.num_pages * call.page_tokens) {
      using Limits = std::numeric_limits<int32_t>;
      int32_t const saturated = static_cast<int32_t>(std::clamp<int64_t>(slot, Limits::min(), Limits::max()));
      found.push_back({FLASHMLA_FAULT_SLOT, 0, static_cast<int32_t>(token), saturated, {}});
      continue;
    }
    char* const target = cache + (slot / call.page_tokens * call.page_stride + slot % call.page_tokens * call.token_stride) * bytes;
    std::copy_n(ckv + token * call.ckv_token_stride * bytes, call.format->latent * bytes, target);
    std::copy_n(kpe + token * call.kpe_token_stride * bytes, call.format->rope * bytes, target + call.format->latent * bytes);
  }
  return found;
}

}  // namespace flashmla::reference
