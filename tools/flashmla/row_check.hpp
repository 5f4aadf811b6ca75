// One request's output against the reference: the guard of everything that the tool measures.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/flashmla/target.hpp"

namespace flashmla::tools {

/// What one request read and what it got, in host memory. Default scale, causal.
struct RowSample {
  ElementType type{};
  int32_t page_tokens = 64;
  int32_t q_tokens = 1;
  int32_t heads = 1;
  int32_t kv_len = 0;
  std::vector<uint16_t> q;      // [q_tokens, heads, qk_dim], in words: two to a number of FP32
  std::vector<uint16_t> pages;  // [its pages in order, page_tokens, qk_dim]
  std::vector<uint16_t> out;    // [q_tokens, heads, v_dim]
  std::vector<float> lse;       // [heads, q_tokens]
};

struct RowError {
  double relative = 0;  // |out - reference| / |reference| over the sampled rows; infinite when a number is not finite
  double lse = 0;       // largest absolute
};

/// Over at most `num_rows` of its rows, (query token, head), spread evenly.
RowError compare_with_reference(RowSample const& sample, int32_t num_rows);

/// The bound on RowError::relative that a correct kernel keeps: rounding P and out accounts for 2.64e-3 in BF16 and
/// 3.3e-4 in FP16; in FP32 it is the arithmetic.
double relative_error_bound(DType dtype);

}  // namespace flashmla::tools
