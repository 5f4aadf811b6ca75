// Decode of one part in float32: for FP16 and FP32 caches, and for BF16 where the machine can't multiply it.
//
//   S^T[token][row] = K Q^T,  P^T = exp2(S^T - max),  O^T[column][row] += V^T P^T
//
// Both products are the same 16 x 16 tile with the rows along the lanes: c[n][row] += sum_k a[k][row] * b(n, k), where b
// is read by broadcast. The tokens of a tile are widened once, to a panel in L2 that serves as K and as V. A tile of FP32
// tokens that lie evenly is its own panel.
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
      Panel const panel = make_panel(task, tile);
      Prefetcher<Isa> ahead(task, tiles[at ^ 1]);
      for (int block = 0; block < task.num_blocks; ++block) {
        score(task, tile, panel, block, &ahead);
        Softmax<Isa>::template run<false>(task, tile, block);
      }
      weigh_values(task, tile, panel, token == task.first_token);
    }
  }

 private:
  static void widen(Storage storage, float* out, void const* in, int n) {
    if (storage == Storage::kFp32) memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
    else if (storage == Storage::kBf16) Isa::widen_bf16(out, static_cast<uint16_t const*>(in), n);
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

  /// The tokens of a tile in float32, latent and rope side by side.
  struct Panel {
    float const* tokens;
    ptrdiff_t stride;  // floats between tokens
  };
  static Panel make_panel(PartTask const& task, Tile const& tile) {
    if (task.keys.storage == Storage::kFp32 && is_even(task, tile))
      return {reinterpret_cast<float const*>(tile.latent[0]), task.keys.latent_token_bytes / static_cast<ptrdiff_t>(sizeof(float))};
    ptrdiff_t const stride = task.latent + task.rope + kPanelPad;
    float* row = reinterpret_cast<float*>(task.scratch.panel);
    Panel const panel = {row, stride};
    for (int t = 0; t < tile.num_groups * kGroupTokens; ++t, row += stride) {
      widen(task.keys.storage, row, tile.latent[t], task.latent);
      widen(task.keys.storage, row + task.latent, tile.rope[t], task.rope);
    }
    return panel;
  }
  /// Whether FP32 tokens lie fused and one stride apart.
  static bool is_even(PartTask const& task, Tile const& tile) {
    ptrdiff_t const latent_bytes = task.latent * static_cast<ptrdiff_t>(sizeof(float));
    for (int t = 0; t < tile.num_groups * kGroupTokens; ++t) {
      bool const follows = t == 0 || tile.latent[t] == tile.latent[t - 1] + task.keys.latent_token_bytes;
      if (!follows || tile.rope[t] != tile.latent[t] + latent_bytes) return false;
    }
    return true;
  }

  static void score(PartTask const& task, Tile const& tile, Panel const& panel, int block, Prefetcher<Isa>* ahead) {
    int const qk_dim = task.latent + task.rope;
    float const ones[kBlockRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int const line = 64 / number_bytes(task.keys.storage);  // numbers
    float* const scores = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
    float const* const queries = block_queries(task, block);
    for (int k = 0; k < qk_dim; k += kChunk) {
      int const count = qk_dim - k < kChunk ? qk_dim - k : kChunk;
      for (int g = 0; g < tile.num_groups; ++g) {
        ahead->some(kChunk * kGroupTokens / line);
        FmaOperands const operands = {queries + k * kBlockRows, count, panel.tokens + g * kGroupTokens * panel.stride + k, panel.stride, 1};
        Isa::tile_fma(scores + g * kGroupTokens * kBlockRows, k == 0 ? nullptr : ones, operands);
      }
    }
  }

  /// Columns outside, blocks inside: 16 columns of the panel stay in L1 while all rows pass.
  static void weigh_values(PartTask const& task, Tile const& tile, Panel const& panel, bool is_first) {
    for (int column = 0; column < task.v_dim; column += 16) {
      for (int block = 0; block < task.num_blocks; ++block) {
        float* const acc = task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
        float const* const probabilities = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
        FmaOperands const operands = {probabilities, tile.num_groups * kGroupTokens, panel.tokens + column, 1, panel.stride};
        Isa::tile_fma(acc, is_first ? nullptr : task.scratch.alpha + block * kBlockRows, operands);
      }
    }
  }
};

}  // namespace flashmla::cpu
