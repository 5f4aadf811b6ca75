// Rows, lengths, masks and destinations are decided here, once, in plain C++; the arithmetic is in src/cpu/generic.
#include "cpu/decode_run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/chunks.hpp"
#include "core/names.hpp"
#include "core/visible.hpp"
#include "core/workspace.hpp"
#include "cpu/chunk_nodes.hpp"
#include "cpu/merge_row.hpp"
#include "cpu/storage.hpp"

namespace flashmla::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Queries of a problem with scale 0: the scores are 0 whatever the keys, and masking still works.
constexpr float kZeroQuery[512] = {};  // or as many numbers of 16 bits

int32_t request_length(RunContext const& run, int32_t request) {
  return core::clamp_length(run.call.kv_len[request],
                            core::length_limit(run.call.table_pages, run.problem.page_tokens, run.problem.max_kv_len));
}

int32_t visible(RunContext const& run, int32_t request, int32_t kv_len, int32_t q_idx) {
  core::QueryBounds const bounds = run.call.query_bounds();
  core::QueryTokens const tokens = core::query_tokens(bounds, request);
  int32_t const* const explicit_len =
      run.call.visible_len == nullptr ? nullptr : run.call.visible_len + core::visible_offset(bounds, request, tokens);
  return core::num_visible(kv_len, tokens.count, q_idx, run.problem.causal, explicit_len);
}

/// A row of a request by its number, q_idx * h_q + head, in a tensor of numbers of `bytes` bytes.
char const* row_pointer(RunContext const& run, void const* base, core::RowStrides const& strides, int32_t request, int32_t row,
                        size_t bytes) {
  int64_t const token = core::query_tokens(run.call.query_bounds(), request).first + int64_t{row / run.problem.h_q};
  return static_cast<char const*>(base) +
         (request * strides.batch + token * strides.token + row % run.problem.h_q * strides.head) * static_cast<int64_t>(bytes);
}

struct RowRange {
  int32_t first, last;  // rows of a request: q_idx * h_q + head
};
/// Empty where a schedule from other q_offsets has a row tile that the request does not have.
RowRange tile_row_range(RunContext const& run, int32_t request, int32_t row_tile) {
  int64_t const rows = static_cast<int64_t>(core::query_tokens(run.call.query_bounds(), request).count) * run.problem.h_q;
  int64_t const first = std::min(static_cast<int64_t>(row_tile) * run.shape.tile_rows, rows);
  return {static_cast<int32_t>(first), static_cast<int32_t>(std::min(first + run.shape.tile_rows, rows))};
}

/// Weight that turns an unnormalised row into the output; the sink joins the denominator.
double row_factor(double row_max_log2, double row_sum, double sink) {
  return row_sum == 0 ? 0.0 : 1.0 / (row_sum + std::exp2(sink - row_max_log2));
}

float user_lse(core::Problem const& problem, double lse_log2) {
  if (lse_log2 == -kInfinity) return problem.empty_row == FLASHMLA_EMPTY_LSE_PLUS_INF ? kInfinity : -kInfinity;
  return static_cast<float>(problem.lse_base == FLASHMLA_LSE_BASE_2 ? lse_log2 : lse_log2 * std::numbers::ln2);
}

void write_lse(RunContext const& run, int32_t request, int32_t row, double lse_log2) {
  if (run.call.lse == nullptr) return;
  void const* const to = row_pointer(run, run.call.lse, run.call.lse_stride, request, row, sizeof(float));
  *static_cast<float*>(const_cast<void*>(to)) = user_lse(run.problem, lse_log2);
}

void* out_row(RunContext const& run, int32_t request, int32_t row) {
  size_t const bytes = core::dtype_bytes(run.problem.out_dtype);
  return const_cast<char*>(row_pointer(run, run.call.out, run.call.out_stride, request, row, bytes));
}

/// Partial results of one (worker, split).
PartialRows partial(RunContext const& run, int32_t worker, int32_t split) {
  char* const base = static_cast<char*>(run.workspace);
  int64_t const slot = core::partial_slot(worker, split), rows = run.shape.tile_rows;
  return {reinterpret_cast<float*>(base + core::workspace_lse_offset()) + slot * rows,
          reinterpret_cast<float*>(base + core::workspace_out_offset(run.shape)) + slot * rows * run.problem.format->v_dim};
}

/// With batch_invariant: node `i` of one (worker, split).
PartialRows node_rows(RunContext const& run, WorkerMemory const& memory, int32_t split, int32_t i) {
  int64_t const slot = static_cast<int64_t>(split == 0 ? 1 : 0) * run.layout.max_nodes() + i, rows = run.shape.tile_rows;
  return {memory.node_lse + slot * rows, memory.node_out + slot * rows * run.problem.format->v_dim};
}

PagedKeys paged_keys(RunContext const& run, int32_t request, int32_t kv_head) {
  core::DecodeCall const& call = run.call;
  int64_t const elem_bytes = static_cast<int64_t>(core::dtype_bytes(run.problem.format->dtype));
  PagedKeys keys{};
  keys.latent = static_cast<char const*>(call.ckv) + kv_head * call.ckv_head_stride * elem_bytes;
  keys.rope = static_cast<char const*>(call.kpe) + kv_head * call.kpe_head_stride * elem_bytes;
  keys.latent_page_bytes = call.ckv_page_stride * elem_bytes;
  keys.latent_token_bytes = call.ckv_token_stride * elem_bytes;
  keys.rope_page_bytes = call.kpe_page_stride * elem_bytes;
  keys.rope_token_bytes = call.kpe_token_stride * elem_bytes;
  keys.page_table = call.page_table + request * call.page_table_stride;
  keys.num_pages = call.num_pages;
  keys.page_tokens = run.problem.page_tokens;
  keys.storage = storage_of(run.problem.format->dtype);
  return keys;
}

/// Fills in the rows of one KV head and returns their number; `limit` gets the keys that each sees.
int32_t gather_rows(RunContext const& run, core::Part const& part, int32_t kv_len, int32_t kv_head, WorkerMemory& memory) {
  RowRange const range = tile_row_range(run, part.request, part.row_tile);
  int32_t const heads_per_kv = run.problem.h_q / run.problem.h_kv;
  bool const no_scale = run.problem.scale == 0;
  size_t const bytes = core::dtype_bytes(run.problem.q_dtype);
  int32_t count = 0;
  for (int32_t row = range.first; row < range.last; ++row) {
    int32_t const q_idx = row / run.problem.h_q, head = row % run.problem.h_q;
    if (head / heads_per_kv != kv_head) continue;
    memory.q_nope[count] = no_scale ? static_cast<void const*>(kZeroQuery)
                                    : row_pointer(run, run.call.q_nope, run.call.q_nope_stride, part.request, row, bytes);
    memory.q_pe[count] =
        no_scale ? static_cast<void const*>(kZeroQuery) : row_pointer(run, run.call.q_pe, run.call.q_pe_stride, part.request, row, bytes);
    memory.row_idx[count] = row;
    memory.limit[count] = visible(run, part.request, kv_len, q_idx);
    ++count;
  }
  for (int32_t pad = count; pad % kBlockRows != 0; ++pad) memory.limit[pad] = 0;
  return count;
}

/// Where the finished rows of a part go: to the caller, or to a partial result.
struct PartTarget {
  bool is_final;
  PartialRows partial;  // [tile_rows] unless final
};

void write_rows(RunContext const& run, core::Part const& part, PartTarget const& target, int32_t num_rows, WorkerMemory& memory,
                AccLayout layout) {
  int32_t const first_row = tile_row_range(run, part.request, part.row_tile).first, v_dim = run.problem.format->v_dim;
  for (int32_t i = 0; i < num_rows; ++i) {
    int32_t const row = memory.row_idx[i];
    double const row_max = memory.scratch.row_max[i], row_sum = memory.scratch.row_sum[i];
    double const lse_log2 = row_sum == 0 ? -kInfinity : row_max + std::log2(row_sum);
    if (target.is_final) {
      memory.out[i] = out_row(run, part.request, row);
      memory.factor[i] = static_cast<float>(row_factor(row_max, row_sum, sink_log2(run.call.sink, row % run.problem.h_q)));
      write_lse(run, part.request, row, lse_log2);
    } else {
      PartialRows const to = target.partial.row(row - first_row, v_dim);
      memory.out[i] = to.out;
      memory.factor[i] = static_cast<float>(row_factor(row_max, row_sum, sink_log2(nullptr, 0)));
      *to.lse = static_cast<float>(lse_log2);
    }
  }
  Storage const storage = target.is_final ? storage_of(run.problem.out_dtype) : Storage::kFp32;
  run.kernels.emit({num_rows, v_dim, layout, memory.scratch.acc, memory.factor, memory.out, storage, memory.row});
}

/// Rows by which the kernel is chosen: those at hand, or with batch_invariant the most that a row tile can hold, since a
/// request with fewer query tokens must not meet another kernel.
int32_t rows_for_choice(RunContext const& run, int32_t num_rows) {
  core::Problem const& problem = run.problem;
  if (!problem.batch_invariant) return num_rows;
  int64_t const heads = problem.h_q / problem.h_kv, all = heads * problem.max_q_tokens;
  int64_t const in_tile = (run.shape.tile_rows / problem.h_q + 2) * heads;  // a tile may begin and end inside a query token
  return static_cast<int32_t>(std::min(all, in_tile));
}

void run_part(RunContext const& run, core::Part const& part, int32_t kv_len, PartTarget const& target, WorkerMemory& memory) {
  core::KvFormat const& format = *run.problem.format;
  for (int32_t kv_head = 0; kv_head < run.problem.h_kv; ++kv_head) {
    int32_t const num_rows = gather_rows(run, part, kv_len, kv_head, memory);
    if (num_rows == 0) continue;
    int32_t const farthest = *std::max_element(memory.limit, memory.limit + num_rows);
    int32_t const last_token = std::min(part.last_token, farthest);
    DecodeKernel const& decode = run.kernels.decode_for(rows_for_choice(run, num_rows), storage_of(format.dtype));
    if (part.first_token < last_token) {
      PartTask task{};
      task.num_rows = num_rows;
      task.num_blocks = (num_rows + kBlockRows - 1) / kBlockRows;
      task.latent = format.latent;
      task.rope = format.rope;
      task.v_dim = format.v_dim;
      task.first_token = part.first_token;
      task.last_token = last_token;
      task.scale_log2 = run.problem.scale == 0 ? 1.0f : static_cast<float>(run.problem.scale * std::numbers::log2e);
      task.q_storage = storage_of(run.problem.q_dtype);
      task.q_nope = memory.q_nope;
      task.q_pe = memory.q_pe;
      task.limit = memory.limit;
      task.keys = paged_keys(run, part.request, kv_head);
      task.scratch = memory.scratch;
      task.fault = memory.fault;
      bool const had_fault = memory.fault->found;
      decode.run(task);
      if (!had_fault) *memory.fault_request = part.request;
    } else {
      std::fill_n(memory.scratch.row_sum, num_rows, 0.0f);
    }
    write_rows(run, part, target, num_rows, memory, decode.layout);
  }
}

/// Where row `row` of a request ends up when it comes of partial results.
MergedRow merged_row(RunContext const& run, int32_t request, int32_t row) {
  return {out_row(run, request, row), storage_of(run.problem.out_dtype), run.problem.format->v_dim,
          sink_log2(run.call.sink, row % run.problem.h_q)};
}

/// With batch_invariant: the chunks that begin in a part, one after another. An item of one chunk is final wherever it is
/// computed; of more, a worker that has them all merges them too.
void run_chunks(RunContext const& run, core::Part const& part, int32_t kv_len, WorkerMemory& memory) {
  int32_t const chunk_tokens = run.problem.chunk_tokens, length = core::chunk_length(chunk_tokens, kv_len);
  bool const is_single = core::num_chunks(chunk_tokens, kv_len) == 1;
  // Of a part behind the first, token 0 means that all of it lies beyond a shorter request.
  core::ChunkRange const range = part.split > 0 && part.first_token == 0
                                     ? core::ChunkRange{1, 1}
                                     : core::chunks_between(chunk_tokens, kv_len, part.first_token, part.last_token);
  RowRange const rows = tile_row_range(run, part.request, part.row_tile);
  ChunkNodes nodes(run.kernels, rows.last - rows.first, run.problem.format->v_dim);
  for (int32_t c = range.first; c < range.last; ++c) {
    core::Part chunk = part;
    chunk.first_token = c * length;
    chunk.last_token = static_cast<int32_t>(std::min<int64_t>(int64_t{c} * length + length, kv_len));
    PartTarget const target = {is_single, is_single ? PartialRows{} : node_rows(run, memory, part.split, nodes.size())};
    run_part(run, chunk, kv_len, target, memory);
    if (!is_single) nodes.push({c, 1}, target.partial);
  }
  if (is_single || !part.is_whole()) return;
  for (int32_t row = rows.first; row < rows.last; ++row)
    write_lse(run, part.request, row, nodes.finish(row - rows.first, merged_row(run, part.request, row)));
}

/// With batch_invariant: one row of an item that several workers shared, from the nodes that each was left with.
void merge_chunked_row(RunContext const& run, core::SplitItem const& item, int32_t row) {
  int32_t const chunk_tokens = run.problem.chunk_tokens, kv_len = request_length(run, item.request);
  if (core::num_chunks(chunk_tokens, kv_len) == 1) return;
  int32_t const in_tile = row - tile_row_range(run, item.request, item.row_tile).first, v_dim = run.problem.format->v_dim;
  ChunkNodes nodes(run.kernels, 1, v_dim);
  for (int32_t split = 0; split < item.num_splits; ++split) {
    int32_t const worker = item.first_worker + split;
    auto const token = [&](int32_t w) { return static_cast<int64_t>(run.schedule.begins[w].tile) * run.shape.tile_tokens; };
    core::ChunkRange range = core::chunks_between(chunk_tokens, kv_len, split == 0 ? 0 : token(worker),
                                                  split + 1 == item.num_splits ? kv_len : token(worker + 1));
    WorkerMemory const memory = run.layout.worker(run.workspace, worker);
    for (int32_t i = 0; range.first < range.last; ++i) {
      core::ChunkNode const node = core::leading_node(range);
      nodes.push(node, node_rows(run, memory, split, i).row(in_tile, v_dim));
      range.first += node.count;
    }
  }
  write_lse(run, item.request, row, nodes.finish(0, merged_row(run, item.request, row)));
}

/// One row of an item that several workers shared. Its splits lie one worker apart.
void merge_split_row(RunContext const& run, core::SplitItem const& item, int32_t row) {
  if (run.problem.batch_invariant) return merge_chunked_row(run, item, row);
  int32_t const in_tile = row - tile_row_range(run, item.request, item.row_tile).first;
  auto const split = [&](int64_t s) {
    PartialRows const all = partial(run, item.first_worker + static_cast<int32_t>(s), static_cast<int32_t>(s));
    PartialRows const rows = all.row(in_tile, run.problem.format->v_dim);
    return PartialRow{*rows.lse, rows.out};
  };
  write_lse(run, item.request, row, merge_row(run.kernels, item.num_splits, Storage::kFp32, split, merged_row(run, item.request, row)));
}

/// The entry of q_offsets that a request could not take as it is; -1 if there is none.
int32_t bad_offset(RunContext const& run, int32_t request) {
  int32_t const* const offsets = run.call.q_offsets;
  int32_t const bad = offsets == nullptr ? -1 : core::bad_query_offset(run.call.query_bounds(), offsets[request], offsets[request + 1]);
  return bad < 0 ? -1 : request + bad;
}

}  // namespace

flashmla_fault check_lengths(RunContext const& run) {
  for (int32_t r = 0; r < run.call.batch; ++r) {
    int32_t const given = run.call.kv_len[r], kv_len = request_length(run, r);
    if (given != kv_len) return {FLASHMLA_FAULT_KV_LEN, r, 0, given, {}};
    core::QueryBounds const bounds = run.call.query_bounds();
    if (int32_t const bad = bad_offset(run, r); bad >= 0) return {FLASHMLA_FAULT_Q_OFFSETS, r, bad, run.call.q_offsets[bad], {}};
    if (run.call.visible_len == nullptr) continue;
    core::QueryTokens const tokens = core::query_tokens(bounds, r);
    int32_t const* const seen = run.call.visible_len + core::visible_offset(bounds, r, tokens);
    for (int32_t i = 0; i < tokens.count; ++i)
      if (seen[i] < 0 || seen[i] > kv_len) return {FLASHMLA_FAULT_VISIBLE_LEN, r, i, seen[i], {}};
  }
  return {};
}

void run_worker(RunContext const& run, int32_t worker) {
  WorkerMemory memory = run.layout.worker(run.workspace, worker);
  *memory.fault = {false, 0, 0};
  core::RaggedRowTiles const row_tiles{run.shape, run.call.query_bounds(), run.problem.h_q};
  for (core::RaggedPartWalk walk(run.schedule, worker, row_tiles); walk.has_item(); walk.advance()) {
    int32_t const kv_len = request_length(run, walk.request());
    core::Part const part = walk.part(kv_len);
    if (run.problem.batch_invariant) run_chunks(run, part, kv_len, memory);
    else run_part(run, part, kv_len, {part.is_whole(), part.is_whole() ? PartialRows{} : partial(run, worker, part.split)}, memory);
  }
}

flashmla_fault worker_fault(RunContext const& run, int32_t worker) {
  WorkerMemory const memory = run.layout.worker(run.workspace, worker);
  if (!memory.fault->found) return {};
  return {FLASHMLA_FAULT_PAGE_ID, *memory.fault_request, memory.fault->position, memory.fault->value, {}};
}

int32_t num_merge_tasks(RunContext const& run) {
  return run.schedule.header->num_split_items * static_cast<int32_t>(core::ceil_div(run.shape.tile_rows, kMergeRows));
}

void run_merge_task(RunContext const& run, int32_t task) {
  int32_t const tasks_per_item = static_cast<int32_t>(core::ceil_div(run.shape.tile_rows, kMergeRows));
  core::SplitItem const item = run.schedule.splits[task / tasks_per_item];
  RowRange const range = tile_row_range(run, item.request, item.row_tile);
  int32_t const begin = range.first + task % tasks_per_item * kMergeRows, end = std::min(begin + kMergeRows, range.last);
  for (int32_t row = begin; row < end; ++row) merge_split_row(run, item, row);
}

}  // namespace flashmla::cpu
