// What a plan is made from, and the arguments of each step: the C structs with their sizes and defaults filled in.
//
// The fields, with shapes and defaults, are documented once, in flashmla.h.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>
#include <flashmla/view.hpp>

namespace flashmla {

using KvFormat = flashmla_kv_format;
inline constexpr KvFormat kKvBf16_576 = FLASHMLA_KV_BF16_576, kKvFp16_576 = FLASHMLA_KV_FP16_576, kKvFp32_576 = FLASHMLA_KV_FP32_576;
inline constexpr KvFormat kKvBf16_320 = FLASHMLA_KV_BF16_320, kKvBf16_288 = FLASHMLA_KV_BF16_288;

/// What does not change between steps.
///
///     Problem problem = Problem::decode(128, kKvBf16_576, 64);  // h_q, cache format, max_batch
///     problem.max_q_tokens = 2;
///     problem.set_causal().set_scale(0.1352f);
struct Problem : flashmla_problem {
  Problem() noexcept : flashmla_problem{} { struct_size = sizeof(flashmla_problem); }

  /// The three required fields: query heads (1 .. 128), cache format, requests a call.
  static Problem decode(int32_t h_q, KvFormat kv_format, int64_t max_batch) noexcept {
    Problem problem;
    problem.h_q = h_q;
    problem.kv_format = kv_format;
    problem.max_batch = max_batch;
    return problem;
  }

  /// Query token i of s_q sees the keys before kv_len - s_q + i + 1.
  Problem& set_causal(bool on = true) noexcept { return set_flag(FLASHMLA_PROBLEM_CAUSAL, on); }
  /// A row's bits depend neither on its batch mates nor on threads or the schedule. `chunk` tokens, a multiple of 64, are computed
  /// at a time; 0 lets the library choose.
  Problem& set_batch_invariant(int32_t chunk = 0) noexcept {
    chunk_tokens = chunk;
    return set_flag(FLASHMLA_PROBLEM_BATCH_INVARIANT, true);
  }
  /// Softmax scale, finite and >= 0; without a call it is qk_dim ** -0.5.
  Problem& set_scale(float value) noexcept {
    scale = value;
    return set_flag(FLASHMLA_PROBLEM_HAS_SCALE, true);
  }

 private:
  Problem& set_flag(uint32_t flag, bool on) noexcept {
    flags = on ? flags | flag : flags & ~flag;
    return *this;
  }
};

/// Where a plan runs: Target(kCpu), Target(cuda_device(0)). Other fields keep their defaults until set.
struct Target : flashmla_target {
  explicit Target(Device where = kCpu) noexcept : flashmla_target{} {
    struct_size = sizeof(flashmla_target);
    device = where;
  }

  /// CPU only: the caller's own threads, see executor.hpp; `threads` is what work is cut for. The struct is read by
  /// DecodePlan::make, what its context points to must outlive the plan.
  Target& set_executor(flashmla_executor const& callers, int32_t threads) noexcept {
    executor = &callers;
    num_threads = threads;
    return *this;
  }
};

/// The lengths of one step. kv_len: int32 [batch] on the plan's device, the new tokens counted.
struct Lengths : flashmla_lengths {
  Lengths() noexcept : flashmla_lengths{} { struct_size = sizeof(flashmla_lengths); }
  explicit Lengths(View const& kv_len_view, int32_t q_tokens_each = 1) noexcept : Lengths() {
    kv_len = kv_len_view;
    q_tokens = q_tokens_each;
  }
  /// Ragged queries: request r has the query tokens [q_offsets[r], q_offsets[r + 1]), at most `most_q_tokens` (0: max_q_tokens).
  static Lengths ragged(View const& kv_len_view, View const& q_offsets_view, int32_t most_q_tokens = 0) noexcept {
    Lengths lengths(kv_len_view, most_q_tokens);
    lengths.q_offsets = q_offsets_view;
    return lengths;
  }
};

/// The views of one decode call.
struct DecodeArgs : flashmla_decode_args {
  DecodeArgs() noexcept : flashmla_decode_args{} {
    struct_size = sizeof(flashmla_decode_args);
    lengths = Lengths();
  }
};

}  // namespace flashmla
