#include "cpu/worker_memory.hpp"

#include <algorithm>

#include "core/chunks.hpp"
#include "core/workspace.hpp"

namespace flashmla::cpu {

namespace {

constexpr size_t kLine = 64;
/// Workers start on pages of their own, a few lines apart modulo the page, so that equal parts of two do not share sets.
constexpr size_t kWorkerAlignment = 4096;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// Hands out consecutive, line-aligned arrays; with a null base it only counts.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  void take(T*& pointer, size_t count) {
    pointer = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * sizeof(T), kLine);
  }
  [[nodiscard]] size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace

WorkerLayout::WorkerLayout(core::Problem const& problem, core::PlanShape const& shape, int32_t step_tokens)
    : qk_dim_(problem.format->qk_dim),
      v_dim_(problem.format->v_dim),
      max_rows_(shape.tile_rows),
      max_workers_(shape.max_workers),
      step_tokens_(step_tokens),
      max_nodes_(problem.batch_invariant ? core::max_nodes(problem.chunk_tokens, problem.max_kv_len) : 0),
      first_worker_(round_up(problem.batch_invariant ? sizeof(core::WorkspaceHeader) : core::workspace_bytes(shape, problem.format->v_dim),
                             kWorkerAlignment)) {
  static_cast<void>(carve(nullptr, &worker_bytes_));
  worker_bytes_ = round_up(worker_bytes_, kWorkerAlignment);
}

WorkerMemory WorkerLayout::worker(void* workspace, int32_t worker) const {
  size_t bytes = 0;
  return carve(static_cast<char*>(workspace) + first_worker_ + static_cast<size_t>(worker) * worker_bytes_, &bytes);
}

WorkerMemory WorkerLayout::carve(char* base, size_t* bytes) const {
  size_t const rows = static_cast<size_t>(max_rows_), qk_dim = static_cast<size_t>(qk_dim_), v_dim = static_cast<size_t>(v_dim_);
  size_t const step = static_cast<size_t>(step_tokens_);
  size_t const padded = round_up(rows, kBlockRows);  // blocks * 16
  size_t const panel_fp32 = size_t{kTileTokens} * kPanelStride * sizeof(float), panel_pairs = 4 * step * kBlockRows * sizeof(uint16_t);
  Carver carver(base);
  WorkerMemory memory{};
  carver.take(memory.scratch.acc, padded * v_dim);
  carver.take(memory.scratch.queries, padded * qk_dim * sizeof(float));
  carver.take(memory.scratch.scores, padded * step);
  carver.take(memory.scratch.pairs, padded * step);
  carver.take(memory.scratch.panel, std::max(panel_fp32, panel_pairs));
  carver.take(memory.scratch.staged, kTileTokens * qk_dim);
  carver.take(memory.scratch.row_max, padded);
  carver.take(memory.scratch.row_sum, padded);
  carver.take(memory.scratch.alpha, padded);
  carver.take(memory.q_nope, rows);
  carver.take(memory.q_pe, rows);
  carver.take(memory.out, rows);
  carver.take(memory.row_idx, rows);
  carver.take(memory.limit, padded);
  carver.take(memory.factor, rows);
  carver.take(memory.row, v_dim);
  carver.take(memory.node_lse, 2 * static_cast<size_t>(max_nodes_) * rows);
  carver.take(memory.node_out, 2 * static_cast<size_t>(max_nodes_) * rows * v_dim);
  carver.take(memory.fault, 1);
  carver.take(memory.fault_request, 1);
  *bytes = carver.used();
  return memory;
}

}  // namespace flashmla::cpu
