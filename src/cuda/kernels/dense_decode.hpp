// Launch interface of the dense decode kernels (BF16 or FP16 cache, keys of 576 numbers or in BF16 320 or 288, pages of any size, any
// number of KV heads).
//
// A kernel row computes row tiles of 64 * group rows of a KV head with `group` CTAs in step, each on 64 rows of the same
// tokens, so that the KV of a request is read from DRAM once. Worker w of the schedule is CTAs w * group .. w * group + group - 1.
// Whole items are written to `out` and `lse`. Of an item that several workers share, each leaves a partial result in the
// workspace, and when all are there, each merges its slice of the rows: nothing follows on the stream. Batch-invariant calls
// leave a partial result for every chunk of a request (core/chunks.hpp), and a second kernel adds them up in order.
#pragma once

#include <cstdint>
#include <string>

#include "core/calls.hpp"
#include "core/planner.hpp"
#include "core/workspace.hpp"

namespace flashmla::cuda {

inline constexpr int kCtaRows = 64;
inline constexpr int kTileTokens = 64;
inline constexpr int kMostTilePages = 4;  // of a tile of several pages that a score warpgroup reads
inline constexpr int kMaxGroup = 4;
inline constexpr int64_t kTransposedRows = 16;
inline constexpr size_t kPartialValueBytes = 2;  // FP16

/// What a part knows of one of its rows. The values beside it are FP16, O times a power of two that brings the largest of
/// each half of its columns close to FP16's largest; `scale` takes them back, to O / l.
struct PartialRow {
  struct Half {
    float lse_log2;  // -inf: the part saw no key, values and scale are 0
    float scale;
  } halves[2];
};

/// How the tokens of a page come into shared memory: one kernel each.
enum class Paging : int32_t {
  kTiles,  // pages of 64 tokens or a multiple: a tile of 64 tokens is one box of TMA
  kBoxes,  // other multiples of 8: boxes of 8 tokens
  kRows,   // any: a token at a time by cp.async
};
constexpr Paging choose_paging(int32_t page_tokens) {
  if (page_tokens % kTileTokens == 0) return Paging::kTiles;
  return page_tokens % 8 == 0 ? Paging::kBoxes : Paging::kRows;
}
/// What a kernel has code for: short calls notice what they have no use for.
enum class Calls : int32_t {
  kFew,   // every request has as many query tokens, and is cut where it balances best; a short call
  kMany,  // the same of any number: CTAs have several parts
  kAny,   // ragged and batch-invariant calls as well
};

/// At most half as many items = (request, row tile) as the plan has workers. Like what follows from it, this depends on nothing that the
/// device alone knows.
constexpr bool is_short_call(int64_t items, int32_t max_workers) { return 2 * items <= max_workers; }

constexpr Calls choose_calls(bool is_uniform, int64_t items, int32_t max_workers) {
  if (!is_uniform) return Calls::kAny;
  return is_short_call(items, max_workers) ? Calls::kFew : Calls::kMany;
}

/// Whether CTAs in step are launched as clusters of two. Nothing in the kernel knows of it: it puts CTAs that read the same KV at the same
/// time next to each other; on a cold card batches of 128-head requests are 1 to 6 % faster. Hopper's multiprocessors come in pairs, so
/// all workers still run at once. But a cluster needs two free neighbours: short calls get by with any multiprocessor that other kernels
/// leave. Clusters of four took twice as long.
constexpr bool runs_in_pairs(bool is_short, int32_t group) { return !is_short && group % 2 == 0; }

/// What a CTA reads first, in one line of the constant cache: every further line costs a short call its latency.
struct alignas(64) StartParams {
  void const* schedule;
  int32_t const* kv_len;
  int32_t const* page_table;
  int64_t page_table_stride;
  int32_t length_limit;   // no request is longer: the table's width, or max_kv_len
  int32_t num_pages;      // of the cache
  int32_t page_tokens;    // of a page
  int32_t num_row_tiles;  // of every request; 0: ragged
  int32_t num_rows;       // (query token, head) of every request and KV head; 0: ragged
  int32_t batch;
  int32_t q_tokens;   // of every request; 0: ragged
  int8_t group;       // CTAs a worker; tile_rows = 64 * group
  int8_t is_chunked;  // batch-invariant
  int16_t kv_heads;   // row tiles are those of the first KV head, of the second, ...

  [[nodiscard]] constexpr bool is_ragged() const { return q_tokens == 0; }
};

/// Everything about a call; passed by value.
struct DenseDecodeParams {
  StartParams start;
  core::DecodeCall call;
  int32_t heads;        // query heads of a KV head
  int32_t max_workers;  // layout of the schedule; grid = max_workers * group
  int32_t causal;
  float scale_log2;          // scale * log2(e)
  float lse_factor;          // ln 2 for natural lse, 1 for base 2: lse = factor * lse_log2
  float empty_lse;           // of a row that sees no key
  uint32_t heads_inverse;    // ceil(2^32 / heads), so that row / heads is one multiplication
  int32_t chunk_tokens;      // batch-invariant: of the problem; and what places of chunks follow from:
  int32_t max_chunks;        //   most of a request
  int32_t chunk_rows;        //   most rows of a request and KV head
  int32_t out_dtype;         // set by the launch: flashmla_dtype
  int32_t q_is_tensor;       // set by the launch: q's rows are evenly spaced and aligned, one tensor map describes them
  int32_t q_is_aligned;      // set by the launch: 16-byte base and strides of q, vector loads
  int32_t out_alignment;     // set by the launch: bytes that base and strides of out are multiples of, 16, 8 or 0 (vector stores from 8)
  void* workspace;           // WorkspaceHeader and exchange flags, and behind them:
  PartialRow* partial_rows;  // [2 * max_workers, group, 64], or of chunks [max_batch, kv_heads, max_chunks, chunk_rows]
  void* partial_values;      // the same of [latent] of 2 bytes
  void* cells;               // partial results of Roles::kTransposed (transposed/cells.cuh); null where no call has any
  int32_t rope_columns;      // 64, or 32 behind 256 latent columns
};

/// (request, row tile): of a ragged call as if all its tokens were one request's, since only the device knows how they are shared out.
constexpr int64_t num_items(DenseDecodeParams const& params) {
  StartParams const& start = params.start;
  if (!start.is_ragged()) return int64_t{start.batch} * start.num_row_tiles;
  int64_t const tile_rows = int64_t{kCtaRows} * start.group;
  return start.kv_heads * ((params.call.total_q * params.heads + tile_rows - 1) / tile_rows);
}

/// What of a cache's shape decides how it is copied.
struct PageShape {
  int32_t tokens;  // of a page
  int32_t kv_heads;
};

/// How the warpgroups of a CTA share a tile.
enum class Roles : int32_t {
  kAlternating,  // tiles alternate between two warpgroups, each with half of O (dense_decode.cuh)
  kScoring,      // a third warpgroup, with Q in its registers, does QK and softmax of every tile (scored/kernel.cuh)
  kTransposed,   // both warpgroups share every tile, keys being wgmma's 64 rows and few rows of the call its N (transposed/kernel.cuh)
};

/// Where requests have two row tiles of kTransposedRows a KV head, which read the same tokens: most row tiles of a call with few rows.
inline constexpr int64_t kFewRowTiles = 16;

/// Whether a short uniform call has few rows: up to 16 a request and KV head, or 32 where it has few requests too. Products of 64 rows would be mostly
/// padding, while calls like these wait for their kernel's start and end, not for what they read twice.
constexpr bool are_few_rows(int64_t rows, int64_t requests) {
  int64_t const tiles = core::ceil_div(rows, kTransposedRows);
  return tiles <= 1 || (tiles == 2 && tiles * requests <= kFewRowTiles);
}

/// `has_few_rows`: of a ragged call, up to 16 a request and KV head. These fill no products of 64 rows; but in long uniform calls memory is the
/// limit, and alternating warpgroups end the parts of cut items faster. A score warpgroup pays where arithmetic is the limit: long calls of more rows
/// than one CTA has; it has no loading warps, so a tile must be one page, or few of which each is one copy.
constexpr Roles choose_roles(PageShape const& pages, Calls calls, int32_t latent, int32_t group, bool has_few_rows) {
  if (latent != 512) return Roles::kAlternating;
  bool const are_tiles = choose_paging(pages.tokens) == Paging::kTiles;
  if (has_few_rows && calls != Calls::kMany) return are_tiles ? Roles::kTransposed : Roles::kAlternating;
  bool const are_few = kTileTokens % pages.tokens == 0 && kTileTokens / pages.tokens <= kMostTilePages;  // 16 or 32 tokens each
  bool const are_copies = are_tiles || (are_few && pages.kv_heads == 1);
  return are_copies && group > 1 && calls != Calls::kFew ? Roles::kScoring : Roles::kAlternating;
}

/// Whether L2 fetches 256 bytes with a line of 128, of the cache and of q. Whole tiles then cost L2 a fifth more reads, 0.2 to 0.5 % of the
/// time where memory is the limit, some tenths of a microsecond of short calls, and 1 % where two CTAs in step have a score warpgroup. But
/// clusters of alternating warpgroups take up to 1 % less so. With four CTAs in step, and other pages, it has not been settled; a score warpgroup
/// has them as whole tiles.
constexpr bool fetches_wide(Paging paging, Roles roles, bool is_paired, int32_t group) {
  if (paging != Paging::kTiles && roles != Roles::kScoring) return true;
  return is_paired && (roles == Roles::kAlternating || group > 2);
}

/// Which kernel serves a call.
struct DenseDecodeKernel {
  flashmla_dtype kv_dtype;
  flashmla_dtype out_dtype;
  Paging paging;
  Calls calls;
  int32_t latent;  // columns: 512, or with BF16 256
  Roles roles;
};

/// Flags of CTAs that exchange halves of an item, behind the workspace's header: eight, a warp that holds O each, for each of at
/// most as many CTAs as there are counters. Zero between runs.
inline constexpr int kExchangeFlags = 8;
inline constexpr size_t kExchangeFlagBytes = sizeof(core::WorkspaceHeader::counters) * kExchangeFlags;

/// The workspace behind its header and these flags.
struct PartialLayout {
  size_t rows_offset, values_offset, bytes;
};
constexpr PartialLayout partial_layout(size_t rows, size_t latent) {
  size_t const rows_offset = sizeof(core::WorkspaceHeader) + kExchangeFlagBytes, values_offset = rows_offset + rows * sizeof(PartialRow);
  return {rows_offset, values_offset, values_offset + rows * latent * kPartialValueBytes};
}

/// Bytes of the cells of kernels with Roles::kTransposed: between runs all bits are 1.
constexpr size_t cell_bytes(int32_t max_workers) {
  constexpr size_t kHeads = 8 * 2 * sizeof(float), kValues = 512 * kPartialValueBytes;  // of a row
  return static_cast<size_t>(core::num_partial_slots(max_workers)) * static_cast<size_t>(kTransposedRows) * (kHeads + kValues);
}

constexpr PartialLayout partial_layout(core::PlanShape const& shape, size_t latent) {
  return partial_layout(static_cast<size_t>(core::num_partial_slots(shape.max_workers)) * static_cast<size_t>(shape.tile_rows), latent);
}

/// CTAs a worker for requests of up to `rows` = q_tokens * h_q rows: as many 64-row tiles in step as fill with least waste.
int choose_group(int64_t rows);

/// Sets the kernel's attributes; legal inside capture. Throws core::Error.
void prepare_dense_decode(DenseDecodeKernel const& kernel);
/// Enqueues the decode kernel with programmatic dependent launch, and for chunks their merge; makes the cache's tensor map. Throws
/// core::Error.
void launch_dense_decode(DenseDecodeKernel const& kernel, DenseDecodeParams const& params, flashmla_stream stream);
/// Registers, shared memory and threads of the kernel, for describe().
std::string describe_dense_decode(DenseDecodeKernel const& kernel);

}  // namespace flashmla::cuda
