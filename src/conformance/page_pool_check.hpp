// The page pool against a plain count of references, over random requests, right and wrong ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conformance/check.hpp"
#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

struct PagePoolCase {
  std::string name;
  int64_t num_pages = 64;
  int steps = 2000;
};

std::vector<PagePoolCase> page_pool_cases(Tier tier);
Outcome check_page_pool(PagePoolCase const& c);

}  // namespace flashmla::conformance
