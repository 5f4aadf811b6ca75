// The validated form of flashmla_problem and flashmla_target: every default filled in, every value legal.
#pragma once

#include <flashmla/flashmla.h>

#include "core/kv_format.hpp"

namespace flashmla::core {

struct Problem {
  int32_t h_q = 0;
  int32_t h_kv = 1;
  KvFormat const* format = nullptr;
  int32_t page_tokens = 64;
  flashmla_dtype q_dtype = FLASHMLA_BF16;
  flashmla_dtype out_dtype = FLASHMLA_BF16;
  flashmla_lse_base lse_base = FLASHMLA_LSE_NATURAL;
  flashmla_lse_layout lse_layout = FLASHMLA_LSE_BATCH_HEADS_TOKENS;
  flashmla_empty_row empty_row = FLASHMLA_EMPTY_LSE_PLUS_INF;
  bool causal = false;
  bool batch_invariant = false;
  int32_t chunk_tokens = 0;  // a multiple of 64 with batch_invariant, else 0
  float scale = 0;
  int32_t topk = 0;
  int32_t extra_topk = 0;
  KvFormat const* extra_format = nullptr;
  int32_t extra_page_tokens = 0;
  int64_t max_batch = 0;
  int64_t max_q_tokens = 1;
  int64_t max_kv_len = 0;           // 0: unbounded
  int64_t max_total_kv_tokens = 0;  // 0: unknown
};

struct Target {
  flashmla_device device{};
  flashmla_isa isa = FLASHMLA_ISA_AUTO;
  int32_t num_threads = 0;       // 0: every core this process may use
  int32_t num_sms = 0;           // 0: all
  flashmla_executor executor{};  // without parallel_for: the backend's own threads
};

/// Checks values that no backend could accept; throws Error(FLASHMLA_INVALID_ARGUMENT). Whether a backend has it built
/// is the backend's question. A target may be as short as its first version, which had no executor.
Problem validate(flashmla_problem const& problem);
Target validate(flashmla_target const& target);

}  // namespace flashmla::core
