// Append against the reference, bit for bit over the whole cache, slots that are skipped or wrong among them.
#pragma once

#include <string>
#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

struct AppendCase {
  std::string name;
  flashmla_kv_format format = FLASHMLA_KV_BF16_576;
  int64_t tokens = 21, num_pages = 9, page_tokens = 64;
  bool pair = false;           // ckv and kpe as views of their own
  bool padded_source = false;  // rows of the new tokens lie apart
  bool padded_pages = false;   // pages of the cache lie apart
  bool rank4 = false;          // the cache has a dimension of one KV head
  bool skips = false;          // every third slot is -1
  bool want_fault = true;
  std::vector<int64_t> bad_slots;  // replace the slots of tokens 1, 3, 5, ...
};

std::vector<AppendCase> append_cases(Tier tier);
Outcome check_append(AppendCase const& c, Bench const& bench);

}  // namespace flashmla::conformance
