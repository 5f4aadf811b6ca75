// What every dense decode kernel knows of its work: sizes, tensor maps, the parts of a CTA, rows and tokens, faults.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "core/chunks.hpp"
#include "core/parts.hpp"
#include "core/schedule.hpp"
#include "core/visible.hpp"
#include "core/workspace.hpp"
#include "cuda/kernels/dense_decode.hpp"
#include "cuda/ptx/sync.cuh"
#include "cuda/tile/fragment.hpp"
#include "cuda/tile/swizzle.hpp"

namespace flashmla::cuda::dense_decode {

inline constexpr int kBoxBytes = 64 * kSwizzleRowBytes;  // 64 tokens or rows x 64 columns

// kLatent, of nearly every template here: latent columns of a key, 512 or 256; O has as many, and RoPE is one box behind them.
template <int kLatent>
inline constexpr int kLatentBoxes = kLatent / 64;
template <int kLatent>
inline constexpr int kOutputs = kLatent / 4;  // a thread's share of 64 rows of O
inline constexpr int kMostLatent = 512;
inline constexpr int kMostBoxes = kLatentBoxes<kMostLatent> + 1;  // of a tile

inline constexpr int kWarpgroupThreads = 128;
inline constexpr float kLazyMaximum = 8.0F;        // log2 units; P stays below 2^8
inline constexpr float kLowestReference = -3e38F;  // for m where that is -inf, which a masked score is too

/// 64 rows of a request: of its rows (query token, head of a KV head), token major, those from `row_begin` on.
struct RowSpan {
  int32_t request;
  int32_t row_begin;
  int32_t num_rows;  // of the request
  int32_t kv_head;
  int32_t first_token;  // of the request's query tokens in q, out and lse; 0 where a stride leads to the request
};

/// A part as one CTA sees it, with bounds from the call's own lengths.
struct alignas(16) Part {
  RowSpan rows;
  int32_t first_tile;
  int32_t num_tiles;  // may be 0
  int32_t kv_len;
  int32_t split;       // index among the parts of the item
  int32_t num_splits;  // parts of the item
  bool is_exchanged;   // two CTAs with one part each share the item: each finishes half of the columns (dense_decode_exchange.cuh)
  bool keeps_q;        // scored/ only: its Q is that of the part before
  bool takes_item;     // scored/ only: this CTA adds the item's other part, which is in memory

  [[nodiscard]] __device__ __forceinline__ bool is_whole() const { return num_splits == 1; }
  /// The item's other part was the first thing that the next worker did: it may be in memory long before this one ends.
  [[nodiscard]] __device__ __forceinline__ bool is_first_of_two() const { return num_splits == 2 && split == 0; }
};

template <Calls kCalls>
__device__ __forceinline__ bool is_chunked(DenseDecodeParams const& params) {
  return kCalls == Calls::kAny && params.start.is_chunked != 0;
}

/// RoPE has 32 columns: half its box is zeros.
template <int kLatent>
__device__ __forceinline__ bool is_rope_short(DenseDecodeParams const& params) {
  return kLatent == 256 && params.rope_columns == 32;
}

/// Asked before anybody knows whether the schedule is one at all.
__device__ __forceinline__ bool is_in_batch(StartParams const& start, core::WorkerBegin const& begin) {
  return begin.request >= 0 && begin.request < start.batch;
}

/// Row tiles of a ragged call: core::num_row_tiles in 32 bits, whose 64-bit divisions would spill 68 bytes more. All that it needs
/// stays where it is, in the constant cache.
struct RaggedCallTiles {
  static constexpr bool kIsUniform = false;
  DenseDecodeParams const* params;

  [[nodiscard]] constexpr core::QueryTokens tokens(int32_t request) const {
    return core::query_tokens(params->call.query_bounds(), request);
  }
  [[nodiscard]] constexpr int32_t operator()(int32_t request) const {
    StartParams const& start = params->start;
    return start.kv_heads * ((tokens(request).count * params->heads + start.group * kCtaRows - 1) / (start.group * kCtaRows));
  }
};

/// Row tiles of a uniform call of few rows: kTransposedRows each, of one CTA.
struct FewRowTiles : core::UniformRowTiles {
  static constexpr int32_t kTileRows = static_cast<int32_t>(kTransposedRows);

  __device__ __forceinline__ explicit FewRowTiles(int32_t count) : UniformRowTiles{count} {}
};

/// The first row of this CTA's in a row tile of a KV head.
template <class RowTiles>
__device__ __forceinline__ int32_t first_row(StartParams const& start, int32_t row_tile) {
  if constexpr (std::is_same_v<RowTiles, FewRowTiles>) return row_tile * RowTiles::kTileRows;
  else return (row_tile * start.group + static_cast<int32_t>(blockIdx.x)) * kCtaRows;
}

/// The parts of this CTA's worker that have rows for it. The producer walks them and announces each to the other roles.
/// RowTiles: core::UniformRowTiles, FewRowTiles or RaggedCallTiles.
template <class RowTiles>
class CtaWalk {
 public:
  /// The first request's length is read here, together with what else a CTA asks for at its start.
  __device__ __forceinline__ CtaWalk(StartParams const& start, core::WorkerBegin const& begin, core::WorkerBegin const& end,
                                     RowTiles const& row_tiles, bool are_pairs)
      : start_(&start),
        are_pairs_(are_pairs),
        row_tiles_(row_tiles),
        walk_(begin, end, row_tiles, kTileTokens),
        first_request_(begin.request),
        first_length_(is_in_batch(start, begin) ? start.kv_len[begin.request] : 0) {}

  /// False at the end.
  __device__ __forceinline__ bool next(Part& part) {
    while (walk_.has_item()) {
      int32_t const request = walk_.request();
      part.kv_len = core::clamp_length(request == first_request_ ? first_length_ : start_->kv_len[request], start_->length_limit);
      core::Part const found = walk_.part(part.kv_len);
      walk_.advance();
      first_token_ = found.first_token, last_token_ = found.last_token;
      int32_t row_tile = found.row_tile;
      part.rows = {found.request, 0, start_->num_rows, 0, 0};
      if constexpr (!RowTiles::kIsUniform) {
        core::QueryTokens const tokens = row_tiles_.tokens(request);
        part.rows.num_rows = tokens.count * row_tiles_.params->heads;
        part.rows.first_token = tokens.first;
      }
      if (start_->kv_heads > 1) {
        int32_t const head_tiles = row_tiles_(request) / start_->kv_heads;
        part.rows.kv_head = row_tile / head_tiles;
        row_tile -= part.rows.kv_head * head_tiles;
      }
      part.rows.row_begin = first_row<RowTiles>(*start_, row_tile);
      part.first_tile = found.first_token / kTileTokens;
      part.num_tiles = (found.last_token + kTileTokens - 1) / kTileTokens - part.first_tile;
      if (found.last_token == found.first_token) part.num_tiles = 0;
      part.split = found.split;
      part.num_splits = found.num_splits;
      part.is_exchanged = are_pairs_ && found.num_splits == 2;
      if (part.rows.row_begin < part.rows.num_rows) return true;
    }
    return false;
  }

  /// Where the latest part begins and ends.
  [[nodiscard]] __device__ __forceinline__ int32_t first_token() const { return first_token_; }
  [[nodiscard]] __device__ __forceinline__ int32_t last_token() const { return last_token_; }

 private:
  StartParams const* start_;
  bool are_pairs_;
  RowTiles row_tiles_;
  core::PartWalkOver<RowTiles> walk_;
  int32_t first_request_, first_length_;
  int32_t first_token_ = 0, last_token_ = 0;
};

/// The chunks that begin in the parts of a walk, each as a part of its own: split is the chunk's number, num_splits how many the
/// request has.
template <class RowTiles>
class ChunkWalk {
 public:
  __device__ __forceinline__ ChunkWalk(DenseDecodeParams const& params, CtaWalk<RowTiles> const& walk) : params_(&params), walk_(walk) {}

  /// False at the end.
  __device__ __forceinline__ bool next(Part& part) {
    int32_t const chunk_tokens = params_->chunk_tokens;
    while (range_.first >= range_.last) {
      if (!walk_.next(part_)) return false;
      part_.num_splits = core::num_chunks(chunk_tokens, part_.kv_len);
      length_ = core::chunk_length(chunk_tokens, part_.kv_len);
      // Of a part behind the first, token 0 means that all of it lies beyond a shorter request.
      bool const is_beyond = part_.split > 0 && walk_.first_token() == 0;
      range_ =
          is_beyond ? core::ChunkRange{1, 1} : core::chunks_between(chunk_tokens, part_.kv_len, walk_.first_token(), walk_.last_token());
    }
    int32_t const first = range_.first * length_, tokens = min(length_, part_.kv_len - first);
    part = part_;
    part.first_tile = first / kTileTokens;
    part.num_tiles = (tokens + kTileTokens - 1) / kTileTokens;
    part.split = range_.first++;
    return true;
  }

 private:
  DenseDecodeParams const* params_;
  CtaWalk<RowTiles> walk_;
  Part part_{};
  core::ChunkRange range_{0, 0};  // still to come of part_
  int32_t length_ = 0;            // of a chunk
};

/// The parts of a worker, or where the call is batch-invariant its chunks.
template <class RowTiles>
class AnyWalk {
 public:
  __device__ __forceinline__ AnyWalk(DenseDecodeParams const& params, CtaWalk<RowTiles> const& walk)
      : is_chunked_(params.start.is_chunked != 0), parts_(walk), chunks_(params, walk) {}
  __device__ __forceinline__ bool next(Part& part) { return is_chunked_ ? chunks_.next(part) : parts_.next(part); }

 private:
  bool is_chunked_;
  CtaWalk<RowTiles> parts_;
  ChunkWalk<RowTiles> chunks_;
};

/// Where a chunk's result of a row lies.
__device__ __forceinline__ int64_t chunk_row(DenseDecodeParams const& params, RowSpan const& rows, int32_t chunk, int32_t row) {
  int64_t const head = static_cast<int64_t>(rows.request) * params.start.kv_heads + rows.kv_head;
  return (head * params.max_chunks + chunk) * params.chunk_rows + row;
}

/// What a consumer thread keeps about its two rows (halves 0 and 1, 8 rows apart) and its half of O.
template <int kLatent>
struct RowState {
  float o[kOutputs<kLatent>];  // [blocks of 8 columns][2 rows][2 columns] of the warpgroup's 64 x kLatent / 2 half
  float max[2];                // m: reference of o and sum, log2 units
  float sum[2];                // this thread's share of l, from its warpgroup's own tiles
  int32_t visible[2];          // keys that the row sees; among tiles, of those from the next own one on
};

/// Where a row belongs.
struct RowTarget {
  int32_t token, head;  // token: of q, out and lse; head: among all query heads
};

/// The query token, among the request's, of a row (row < 2^16, heads <= 128: exact).
__device__ __forceinline__ int32_t token_of(DenseDecodeParams const& params, int32_t row) {
  return params.heads == 1 ? row : static_cast<int32_t>(__umulhi(static_cast<uint32_t>(row), params.heads_inverse));
}
__device__ __forceinline__ RowTarget row_target(DenseDecodeParams const& params, RowSpan const& rows, int32_t row) {
  int32_t const token = token_of(params, row);
  return {rows.first_token + token, row - token * params.heads + rows.kv_head * params.heads};
}

/// Elements from a tensor's base to a row.
__device__ __forceinline__ int64_t row_offset(core::RowStrides const& stride, RowSpan const& rows, RowTarget const& row) {
  return rows.request * stride.batch + row.token * stride.token + row.head * stride.head;
}

/// Asks for the first 32 entries of the table that a worker needs, a lane each, before their request's length is known, so that
/// the producer finds them in L1. Read in place, or the compiler has it wait for the length.
__device__ __forceinline__ void touch_first_pages(StartParams const& start, core::WorkerBegin const& begin) {
  auto const tile = static_cast<uint32_t>(begin.tile), page_tokens = static_cast<uint32_t>(start.page_tokens);
  uint32_t const first = page_tokens == kTileTokens ? tile : tile * kTileTokens / page_tokens, entry = first + threadIdx.x % 32;
  bool const is_in_table = is_in_batch(start, begin) && static_cast<int64_t>(entry) * page_tokens < start.length_limit;
  if (is_in_table) ptx::load_in_place(start.page_table + begin.request * start.page_table_stride + entry);
}

/// Keeps the first fault of a run; later ones are dropped.
__device__ __forceinline__ void keep_fault(void* workspace, int32_t code, int32_t request, int32_t position, int32_t value) {
  flashmla_fault& fault = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  if (atomicCAS(&fault.code, FLASHMLA_FAULT_NONE, code) != FLASHMLA_FAULT_NONE) return;
  fault.request = request;
  fault.position = position;
  fault.value = value;
}
/// The same out of line: cold code in the way costs instruction fetches. Not where O is in registers.
__device__ __noinline__ void record_fault(void* workspace, int32_t code, int32_t request, int32_t position, int32_t value) {
  keep_fault(workspace, code, request, position, value);
}

/// The caller's visible_len of a request's query tokens; null where the call has none.
__device__ __forceinline__ int32_t const* visible_lengths(DenseDecodeParams const& params, core::QueryBounds const& bounds,
                                                          RowSpan const& rows, int32_t q_tokens) {
  return params.call.visible_len == nullptr
             ? nullptr
             : params.call.visible_len + core::visible_offset(bounds, rows.request, {rows.first_token, q_tokens});
}

/// Keys that the thread's rows see. A visible_len outside [0, kv_len] is clamped, and `record` called with its token and what it was.
template <class Record>
__device__ __forceinline__ void read_visible(int32_t (&visible)[2], DenseDecodeParams const& params, Part const& part, int32_t thread,
                                             Record const& record) {
  core::QueryBounds const bounds = params.call.query_bounds();
  int32_t const q_tokens = token_of(params, part.rows.num_rows);
  int32_t const* const view = visible_lengths(params, bounds, part.rows, q_tokens);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const index = part.rows.row_begin + fragment_row(thread, half), token = token_of(params, index);
    visible[half] = part.kv_len;
    if (token >= q_tokens) continue;
    visible[half] = core::num_visible(part.kv_len, q_tokens, token, params.causal != 0, view);
    if (view != nullptr && view[token] != visible[half]) record(token, view[token]);
  }
}

/// The same value in every lane, said so that the compiler knows: descriptors made of it live in uniform registers.
__device__ __forceinline__ uint32_t uniform(uint32_t value) { return __shfl_sync(0xffffffffU, value, 0); }

/// Two values as a pair of a 16-bit type, the first in the low half.
template <class Element>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<uint32_t const&>(pair);
  } else {
    __half2 const pair = __floats2half2_rn(low, high);
    return reinterpret_cast<uint32_t const&>(pair);
  }
}

}  // namespace flashmla::cuda::dense_decode
