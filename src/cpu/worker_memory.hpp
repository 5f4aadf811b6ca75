// The CPU's share of a workspace: behind core's header and partial results, one working memory for each worker. With
// batch_invariant the partial results are those of chunks and lie in there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/planner.hpp"
#include "core/problem.hpp"
#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

/// Typed pointers into a worker's memory. `blocks` below: of the rows of one KV head in a row tile.
struct WorkerMemory {
  Scratch scratch;
  void const** q_nope;  // [rows]
  void const** q_pe;    // [rows]
  void** out;           // [rows]
  int32_t* row_idx;     // [rows] index inside the row tile
  int32_t* limit;       // [blocks][16]
  float* factor;        // [rows]
  float* row;           // [v_dim]
  float* node_lse;      // [2][max_nodes][max_rows] with batch_invariant: of the worker's first part and of its last
  float* node_out;      // [2][max_nodes][max_rows][v_dim]
  PageFault* fault;
  int32_t* fault_request;
};

class WorkerLayout {
 public:
  /// `step_tokens`: tokens whose scores a kernel of the plan holds at a time.
  WorkerLayout(core::Problem const& problem, core::PlanShape const& shape, int32_t step_tokens);

  [[nodiscard]] size_t workspace_bytes() const { return first_worker_ + static_cast<size_t>(max_workers_) * worker_bytes_; }
  [[nodiscard]] WorkerMemory worker(void* workspace, int32_t worker) const;
  [[nodiscard]] int32_t max_nodes() const { return max_nodes_; }

 private:
  [[nodiscard]] WorkerMemory carve(char* base, size_t* bytes) const;

  int32_t qk_dim_, v_dim_, max_rows_, max_workers_, step_tokens_;
  int32_t max_nodes_;  // 0 without batch_invariant
  size_t first_worker_, worker_bytes_ = 0;
};

}  // namespace flashmla::cpu
