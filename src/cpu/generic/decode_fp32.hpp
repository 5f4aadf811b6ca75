// Decode of one part in float32: for FP16 caches, and for BF16 where the machine can't multiply it.
//
//   S^T[token][row] = K Q^T,  P^T = exp2(S^T - max),  O^T[column][row] += V^T P^T
//
// Both products are the same 16 x 16 tile with the rows along the lanes: c[n][row] += sum_k a[k][row] * b(n, k), where b
// is read by broadcast. The tokens of a tile are widened once, to a panel in L2 that serves as K and as V.
#pragma once

#include "cpu/generic/softmax.hpp"
#include "cpu/isa/scalar.hpp"

namespace flashmla::cpu {

template <class Isa>
struct DecodeFp32 {
  static constexpr int kChunk = 192;  // numbers of a query packed in 12 KiB: stays in L1 while tokens pass

  static void run(PartTask const& task) {
    pack_queries(task);
    Softmax<Isa>::begin(task);
    Tile tiles[2];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at ^= 1) {
      Tile const& tile = tiles[at];
      Tiles<Isa>::locate(task, token + kTileTokens, &tiles[at ^ 1]);
      widen_tile(task, tile);
      Prefetcher<Isa> ahead = {&tiles[at ^ 1], task.latent, task.rope, 0, 0};
      for (int block = 0; block < task.num_blocks; ++block) {
        score(task, tile, block, &ahead);
        Softmax<Isa>::template run<false>(task, tile, block);
      }
      weigh_values(task, tile, token == task.first_token);
    }
  }

 private:
  static void widen(Storage storage, float* out, void const* in, int n) {
    if (storage == Storage::kBf16) Isa::widen_bf16(out, static_cast<uint16_t const*>(in), n);
    else Isa::widen_fp16(out, static_cast<uint16_t const*>(in), n);
  }

  static float* block_queries(PartTask const& task, int block) {
    return reinterpret_cast<float*>(task.scratch.queries) + static_cast<ptrdiff_t>(block) * (task.latent + task.rope) * kBlockRows;
  }

  /// queries[block][k][row]; rows that pad the last block are zero.
  static void pack_queries(PartTask const& task) {
    int const qk_dim = task.latent + task.rope;
    float* const row = reinterpret_cast<float*>(task.scratch.panel);
    for (int r = 0; r < task.num_blocks * kBlockRows; ++r) {
      float* const out = block_queries(task, r / kBlockRows) + r % kBlockRows;
      if (r < task.num_rows) {
        widen(task.q_storage, row, task.q_nope[r], task.latent);
        widen(task.q_storage, row + task.latent, task.q_pe[r], task.rope);
      } else {
        memset(row, 0, static_cast<size_t>(qk_dim) * sizeof(float));
      }
      for (int k = 0; k < qk_dim; ++k) out[k * kBlockRows] = row[k];
    }
  }

  static ptrdiff_t panel_stride(PartTask const& task) { return task.latent + task.rope + kPanelPad; }

  static void widen_tile(PartTask const& task, Tile const& tile) {
    float* row = reinterpret_cast<float*>(task.scratch.panel);
    for (int t = 0; t < tile.num_groups * kGroupTokens; ++t, row += panel_stride(task)) {
      widen(task.keys.storage, row, tile.latent[t], task.latent);
      widen(task.keys.storage, row + task.latent, tile.rope[t], task.rope);
    }
  }

  static void score(PartTask const& task, Tile const& tile, int block, Prefetcher<Isa>* ahead) {
    int const qk_dim = task.latent + task.rope;
    float const ones[kBlockRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    float const* const panel = reinterpret_cast<float const*>(task.scratch.panel);
    float* const scores = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
    float const* const queries = block_queries(task, block);
    for (int k = 0; k < qk_dim; k += kChunk) {
      int const count = qk_dim - k < kChunk ? qk_dim - k : kChunk;
      for (int g = 0; g < tile.num_groups; ++g) {
        ahead->some(kChunk * kGroupTokens / 32);
        FmaOperands const operands = {queries + k * kBlockRows, count, panel + g * kGroupTokens * panel_stride(task) + k,
                                      panel_stride(task), 1};
        Isa::tile_fma(scores + g * kGroupTokens * kBlockRows, k == 0 ? nullptr : ones, operands);
      }
    }
  }

  /// Columns outside, blocks inside: 16 columns of the panel stay in L1 while all rows pass.
  static void weigh_values(PartTask const& task, Tile const& tile, bool is_first) {
    float const* const panel = reinterpret_cast<float const*>(task.scratch.panel);
    for (int column = 0; column < task.v_dim; column += 16) {
      for (int block = 0; block < task.num_blocks; ++block) {
        float* const acc = task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
        float const* const probabilities = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
        FmaOperands const operands = {probabilities, tile.num_groups * kGroupTokens, panel + column, 1, panel_stride(task)};
        Isa::tile_fma(acc, is_first ? nullptr : task.scratch.alpha + block * kBlockRows, operands);
      }
    }
  }
};

}  // namespace flashmla::cpu
