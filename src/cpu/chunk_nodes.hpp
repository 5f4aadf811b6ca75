// Partial results of chunks, merged as soon as both halves of a node are there; see core/chunks.hpp for the order.
#pragma once

#include <array>
#include <cstdint>

#include "core/chunks.hpp"
#include "cpu/merge_row.hpp"

namespace flashmla::cpu {

/// Partial results of consecutive rows.
struct PartialRows {
  float* lse;  // [rows], log2 domain, -inf: empty
  float* out;  // [rows, v_dim], normalised

  [[nodiscard]] PartialRows row(int64_t i, int64_t v_dim) const { return {lse + i, out + i * v_dim}; }
};

/// Nodes that lie one behind the other, the last of them on top. A merged node takes the place of its first half.
class ChunkNodes {
 public:
  ChunkNodes(Kernels const& kernels, int32_t num_rows, int32_t v_dim) : kernels_(kernels), num_rows_(num_rows), v_dim_(v_dim) {}

  [[nodiscard]] int32_t size() const { return size_; }

  void push(core::ChunkNode node, PartialRows rows) {
    entries_[static_cast<size_t>(size_++)] = {node, rows};
    while (size_ > 1 && core::are_halves(entry(size_ - 2).node, entry(size_ - 1).node)) {
      Entry& left = entries_[static_cast<size_t>(size_ - 2)];
      merge(left.rows, entry(--size_).rows);
      left.node.count *= 2;
    }
  }

  /// The result of row `i`: written to `target`, its lse (log2 domain) returned.
  [[nodiscard]] double finish(int32_t i, MergedRow const& target) const {
    auto const part = [&](int64_t n) {
      PartialRows const rows = entry(static_cast<int32_t>(n)).rows.row(i, v_dim_);
      return PartialRow{*rows.lse, rows.out};
    };
    return merge_row(kernels_, size_, Storage::kFp32, part, target);
  }

 private:
  struct Entry {
    core::ChunkNode node;
    PartialRows rows;
  };
  [[nodiscard]] Entry const& entry(int32_t i) const { return entries_[static_cast<size_t>(i)]; }

  void merge(PartialRows const& left, PartialRows const& right) const {
    for (int64_t i = 0; i < num_rows_; ++i) {
      PartialRows const halves[2] = {left.row(i, v_dim_), right.row(i, v_dim_)};
      auto const part = [&](int64_t n) { return PartialRow{*halves[n].lse, halves[n].out}; };
      *halves[0].lse =
          static_cast<float>(merge_row(kernels_, 2, Storage::kFp32, part, {halves[0].out, Storage::kFp32, v_dim_, sink_log2(nullptr, 0)}));
    }
  }

  Kernels const& kernels_;
  int32_t num_rows_, v_dim_;
  int32_t size_ = 0;
  std::array<Entry, core::max_nodes(core::kMaxChunks)> entries_{};
};

}  // namespace flashmla::cpu
