// What a split of work amounts to: the load of each worker, the balance, and whether it covers everything once.
#pragma once

#include <cstdint>
#include <flashmla/decode_plan.hpp>
#include <map>
#include <string>
#include <vector>

namespace flashmla::tools {

struct SplitSummary {
  std::map<int32_t, int64_t> load_tokens;  // of each worker: the tokens of its parts, summed over row tiles
  int64_t largest_tokens = 0;
  double mean_tokens = 0;
  double balance = 1;       // mean / largest
  int64_t row_tiles = 0;    // the most that a request has
  int64_t split_items = 0;  // (request, row tile) pairs shared by several workers
  std::string defect;       // the first violation found, else empty
};

/// A sound split covers every token of every (request, row tile) exactly once, in order, with parts numbered 0 .. n - 1;
/// no part is empty, except the only one of an empty request. q_tokens: query tokens of each request, empty where all have as
/// many; a request with more of them has as many row tiles at least, one with none has no part.
SplitSummary summarise(std::vector<Part> const& parts, std::vector<int32_t> const& kv_len, std::vector<int32_t> const& q_tokens = {});

}  // namespace flashmla::tools
