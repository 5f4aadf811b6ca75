// What the backend hands to a kernel: plain data, so that nothing here is compiled twice for two instruction sets.
//
// A *block* is 16 rows (query heads), a *group* 16 tokens, a *tile* kTileTokens tokens. All numbers of a block lie with
// the row fastest, [..][16]: the lanes of a vector.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace flashmla::cpu {

inline constexpr int kBlockRows = 16;
inline constexpr int kGroupTokens = 16;
inline constexpr int kTileTokens = 64;
inline constexpr int kTileGroups = kTileTokens / kGroupTokens;
inline constexpr int kMaxStepTokens = 2 * kTileTokens;  // most tokens whose scores a kernel holds at a time
/// Floats between widened tokens: 576 numbers and 16 that keep tokens from sharing cache sets. Constant, so that 16 tokens are
/// reached from one register.
inline constexpr int kPanelStride = 592;

enum class Storage : int32_t { kBf16, kFp16, kFp32 };
constexpr int number_bytes(Storage storage) { return storage == Storage::kFp32 ? 4 : 2; }

/// One KV head of the paged cache, seen by one request. Strides in bytes.
struct PagedKeys {
  char const* latent;  // [num_pages, page_tokens, latent]
  char const* rope;    // [num_pages, page_tokens, rope]
  int64_t latent_page_bytes, latent_token_bytes;
  int64_t rope_page_bytes, rope_token_bytes;
  int32_t const* page_table;  // this request's row; entries beyond its length are junk
  int64_t num_pages;
  int32_t page_tokens;
  Storage storage;
};

/// How an accumulator lies: [blocks][v_dim][16] with the row fastest, [rows][v_dim], or [blocks][v_dim / 16][16 rows][16].
enum class AccLayout : int32_t { kBlocks, kRows, kTiles };

/// Working memory of one worker, for at most max_blocks blocks. 64-byte aligned.
struct Scratch {
  float* acc;        // unnormalised output, in the AccLayout of the kernel
  char* queries;     // packed: float32 [blocks][qk_dim][16], or BF16 pairs [blocks][qk_dim / 2][16][2]
  float* scores;     // [blocks][step_tokens][16]; probabilities take the place of scores
  uint16_t* pairs;   // [blocks][step_tokens / 2][16][2] probabilities as BF16 pairs of tokens
  char* panel;       // float32 [kTileTokens][kPanelStride], or BF16 pairs, up to [4][step_tokens / 2][16][2]
  uint16_t* staged;  // [kTileTokens][qk_dim] groups that can't be used in place
  float* row_max;    // [blocks][16], log2 domain
  float* row_sum;    // [blocks][16]
  float* alpha;      // [blocks][16] what the last tile scales acc by
};

/// A page id outside the cache, met at entry `position` of the table.
struct PageFault {
  bool found;
  int32_t position, value;
};

/// Attention of one part: rows of one KV head over a range of tokens.
struct PartTask {
  int32_t num_rows, num_blocks;
  int32_t latent, rope, v_dim;
  int32_t first_token, last_token;  // first_token is a multiple of kTileTokens
  float scale_log2;                 // softmax scale * log2(e)
  Storage q_storage;
  void const* const* q_nope;  // [num_rows] -> [latent]
  void const* const* q_pe;    // [num_rows] -> [rope]
  int32_t const* limit;       // [num_blocks][16] keys a row sees; 0 for rows that pad a block
  PagedKeys keys;
  Scratch scratch;
  PageFault* fault;
};

/// Rows out of an accumulator: out[row] = factor[row] * acc of the row.
struct EmitTask {
  int32_t num_rows, v_dim;
  AccLayout layout;
  float const* acc;
  float const* factor;  // [num_rows]; 0 writes zeros whatever acc holds
  void* const* out;     // [num_rows] -> [v_dim]
  Storage storage;
  float* row;  // [v_dim] working memory
};

/// A kernel: attention of one part into scratch.acc, row_max and row_sum.
struct DecodeKernel {
  void (*run)(PartTask const&);
  AccLayout layout;
  int32_t step_tokens;  // tokens whose scores it holds at a time, at most kMaxStepTokens
};

/// The entry points of one instruction set, and which of two kernels is the faster one.
struct Kernels {
  DecodeKernel wide_bf16;  // rows along the lanes, padded to blocks; for BF16 caches
  DecodeKernel wide_fp32;  // the same in float32; for FP16 and FP32 caches
  DecodeKernel narrow;     // numbers along the lanes, for at most kBlockRows rows
  // Most rows for which narrow wins, by format of the cache: measured.
  int32_t narrow_rows_bf16, narrow_rows_fp16, narrow_rows_fp32;
  void (*emit)(EmitTask const&);
  void (*add_row)(float* sum, void const* in, Storage storage, float weight, int32_t n);  // sum[n] += weight * in[n]
  void (*store_row)(void* out, Storage storage, float const* row, int32_t n);

  [[nodiscard]] constexpr DecodeKernel const& decode_for(int32_t num_rows, Storage storage) const {
    if (num_rows <= narrow_rows(storage)) return narrow;
    return storage == Storage::kBf16 ? wide_bf16 : wide_fp32;
  }
  [[nodiscard]] constexpr int32_t narrow_rows(Storage storage) const {
    if (storage == Storage::kBf16) return narrow_rows_bf16;
    return storage == Storage::kFp16 ? narrow_rows_fp16 : narrow_rows_fp32;
  }
};

extern Kernels const kPortableKernels;
extern Kernels const kAvx2Kernels;
extern Kernels const kAvx512fKernels;
extern Kernels const kAvx512Bf16Kernels;
extern Kernels const kAmxBf16Kernels;
extern Kernels const kNeonKernels;
extern Kernels const kNeonBf16Kernels;

}  // namespace flashmla::cpu
