// copy_pages against the reference, bit for bit over every cache, gaps and untouched pages among them; and what it refuses.
#pragma once

#include <string>
#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

struct CopyPagesCase {
  std::string name;
  flashmla_dtype dtype = FLASHMLA_BF16;
  int64_t layers = 3, num_pages = 12, page_tokens = 64, heads = 1, width = 576;
  int64_t num_copies = 4;
  int64_t misaligned_elems = 0;  // the caches begin so far past 16-byte alignment
  bool padded_pages = false;     // gaps behind pages
  bool padded_tokens = false;    // gaps behind tokens
  bool heads_outside = false;    // memory is [num_pages, heads, page_tokens, width]
  bool interleaved = false;      // memory is [num_pages, layers, ...]
  bool skips = false;            // every third pair is -1
};

std::vector<CopyPagesCase> copy_pages_cases(Tier tier);
Outcome check_copy_pages(CopyPagesCase const& c, Bench const& bench);

}  // namespace flashmla::conformance
