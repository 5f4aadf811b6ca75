// Append: each new token (latent, then RoPE) to the slot that the mapping names.
//
// Math: a copy; slot = page * page_tokens + offset, -1 skips, any other slot outside the cache is skipped and recorded.
//   Reference: src/reference/append.cpp.
// Roles: one warp a token.
// Timeline: slot -> copy of latent and RoPE, 16 bytes a lane where everything is aligned.
// Shared memory: none.
// Barriers: none.
// Registers: no constraint.
// Limits: formats of 2-byte elements.
#pragma once

#include <cstdint>

#include "core/calls.hpp"

namespace flashmla::cuda::append {

inline constexpr int kThreads = 128;
inline constexpr int kTokensPerCta = kThreads / 32;

/// The call with strides and widths in units of Word, the widest access that every address allows.
struct AppendParams {
  void const* ckv;  // [tokens, latent]
  void const* kpe;  // [tokens, rope]
  void* cache;      // [num_pages, page_tokens, latent + rope]
  int64_t ckv_token_stride, kpe_token_stride, page_stride, token_stride;
  int32_t latent, rope;
  int64_t tokens, num_pages, page_tokens;
  int64_t const* slot_mapping;  // [tokens]
  flashmla_fault* fault;        // or null
};

__device__ inline int32_t saturate(int64_t value) {
  return static_cast<int32_t>(value < INT32_MIN ? INT32_MIN : (value > INT32_MAX ? INT32_MAX : value));
}

/// The first fault wins; its other fields belong to the thread that changed the code from none.
__device__ inline void record(flashmla_fault* fault, int64_t token, int64_t slot) {
  if (fault == nullptr || atomicCAS(&fault->code, FLASHMLA_FAULT_NONE, FLASHMLA_FAULT_SLOT) != FLASHMLA_FAULT_NONE) return;
  fault->request = 0;
  fault->position = saturate(token);
  fault->value = saturate(slot);
}

template <class Word>
__device__ inline void copy_words(Word* to, Word const* from, int32_t count) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x % 32); i < count; i += 32) to[i] = from[i];
}

template <class Word>
__global__ void __launch_bounds__(kThreads) append_kernel(AppendParams const __grid_constant__ p) {
  cudaGridDependencySynchronize();
  int64_t const token = static_cast<int64_t>(blockIdx.x) * kTokensPerCta + threadIdx.x / 32;
  if (token >= p.tokens) return;
  int64_t const slot = p.slot_mapping[token];
  if (slot == -1) return;
  if (slot < 0 || slot >= p.num_pages * p.page_tokens) {
    if (threadIdx.x % 32 == 0) record(p.fault, token, slot);
    return;
  }
  Word* const to = static_cast<Word*>(p.cache) + slot / p.page_tokens * p.page_stride + slot % p.page_tokens * p.token_stride;
  copy_words(to, static_cast<Word const*>(p.ckv) + token * p.ckv_token_stride, p.latent);
  copy_words(to + p.latent, static_cast<Word const*>(p.kpe) + token * p.kpe_token_stride, p.rope);
}

}  // namespace flashmla::cuda::append
