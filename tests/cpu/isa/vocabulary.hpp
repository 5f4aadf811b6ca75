// The vocabulary of an instruction set as plain functions over memory, so that one test runs them all: a test is not
// compiled for AVX-512, what it calls is.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>
#include <cstdint>

namespace flashmla::cpu::test {

/// One tile product, c[16][16]; see src/cpu/isa/scalar.hpp.
struct TileCall {
  float* c;
  float const* alpha;
  float const* a;
  int num_k;
  float const* b;
  ptrdiff_t n_stride, k_stride;
};

/// Dot products of BF16 pairs; b(n, p) as tile_dot_keys wants it, or, for values, as tile_dot_values does.
struct DotCall {
  float* c;
  float const* alpha;
  uint16_t const* a;
  int num_pairs;
  char const* b;
  ptrdiff_t n_bytes;
  char const* const* next_tokens;  // values only: columns [1, 17) of 2 * num_pairs tokens are paired up meanwhile; null: not
  uint16_t* next_out;
};

struct Vocabulary {
  flashmla_isa isa;
  char const* name;
  void (*mul)(float* out, float const* a, float const* b);  // all of these on 16 numbers
  void (*add)(float* out, float const* a, float const* b);
  void (*sub)(float* out, float const* a, float const* b);
  void (*max)(float* out, float const* a, float const* b);
  void (*exp2)(float* out, float const* x);
  void (*set1)(float* out, float x);
  void (*mask_token)(float* out, float const* x, int32_t const* limit, int32_t token);
  void (*widen_bf16)(float* out, uint16_t const* in, int n);
  void (*widen_fp16)(float* out, uint16_t const* in, int n);
  void (*narrow_bf16)(uint16_t* out, float const* in, int n);
  void (*narrow_fp16)(uint16_t* out, float const* in, int n);
  void (*accumulate)(float* out, float const* in, float weight, int n);
  void (*tile_fma)(TileCall const& call);
  void (*tile_fma_pair)(TileCall const& call);  // alpha [2][16]; c and a of the second block follow those of the first; or null
  void (*transpose_words)(uint32_t* out, ptrdiff_t out_words, uint32_t const* const* in);
  // Numbers of one token along the lanes.
  int num_lanes;
  void (*mul_add_lanes)(float* out, float const* a, float const* b, float const* c);  // out = a * (a * b + c), num_lanes each
  void (*sums_of_8)(float* out, float const* x);                                      // x [8][num_lanes]
  void (*split_and_join)(float* out, uint16_t const* in, bool is_bf16);               // 2 * num_lanes numbers
  // Null without a BF16 dot product.
  void (*dot_pairs)(float* out, float const* acc, uint16_t const* a, uint16_t const* b);              // num_lanes sums
  void (*weigh_two)(float* out, uint16_t const* weights, uint16_t const* even, uint16_t const* odd);  // 2 * num_lanes numbers
  void (*store_bf16)(uint16_t* out, float const* x);                                                  // 16 numbers
  void (*dot_keys)(DotCall const& call);
  void (*dot_values)(DotCall const& call);
  void (*interleave)(uint16_t* out, char const* const* tokens, int num_pairs);  // columns [1, 17) of each token
  void (*store_pairs)(uint16_t* out, float const* first, float const* second);
};

extern Vocabulary const kPortableVocabulary;
extern Vocabulary const kAvx2Vocabulary;
extern Vocabulary const kAvx512fVocabulary;
extern Vocabulary const kAvx512Bf16Vocabulary;
extern Vocabulary const kNeonVocabulary;
extern Vocabulary const kNeonBf16Vocabulary;

}  // namespace flashmla::cpu::test
