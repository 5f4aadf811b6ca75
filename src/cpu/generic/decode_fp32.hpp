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
  static constexpr int kStepRows = (Isa::kHasTileFmaPair ? 2 : 1) * kBlockRows;  // of one product
  /// Numbers of a key whose products are made at once: a group's, 12 or 18 KiB, stay in L1 while the queries of all rows pass.
  static constexpr int kChunk = Isa::kHasTileFmaPair ? 288 : 192;

  static void run(PartTask const& task) {
    Tile tiles[3];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    Tiles<Isa>::locate(task, task.first_token + kTileTokens, &tiles[1]);
    Prefetcher<Isa>(task, &tiles[0]).all();
    pack_queries(task);
    Softmax<Isa>::begin(task);
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at = (at + 1) % 3) {
      Tile const& tile = tiles[at];
      Tile& far = tiles[(at + 2) % 3];
      Tiles<Isa>::locate(task, token + 2 * kTileTokens, &far);
      Prefetcher<Isa>::translate(task, far);
      Panel const panel = panel_of(task, tile);
      Prefetcher<Isa> ahead(task, &tiles[(at + 1) % 3]);
      score(task, tile, panel, &ahead);
      for (int block = 0; block < task.num_blocks; ++block) Softmax<Isa>::template run_tile<false>(task, tile, block);
      weigh_values(task, tile, panel, token == task.first_token, &ahead);
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
    float* const rows = reinterpret_cast<float*>(task.scratch.panel);  // [16][kPanelStride]
    for (int block = 0; block < task.num_blocks; ++block) {
      for (int r = 0; r < kBlockRows; ++r) {
        int const row_idx = block * kBlockRows + r;
        float* const row = rows + r * kPanelStride;
        if (row_idx < task.num_rows) {
          widen(task.q_storage, row, task.q_nope[row_idx], task.latent);
          widen(task.q_storage, row + task.latent, task.q_pe[row_idx], task.rope);
        } else {
          memset(row, 0, static_cast<size_t>(qk_dim) * sizeof(float));
        }
      }
      for (int k = 0; k < qk_dim; k += 16) {
        uint32_t const* in[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) in[r] = reinterpret_cast<uint32_t const*>(rows + r * kPanelStride + k);
        Isa::transpose_words(reinterpret_cast<uint32_t*>(block_queries(task, block) + k * kBlockRows), kBlockRows, in);
      }
    }
  }

  /// The tokens of a tile in float32, latent and rope side by side.
  struct Panel {
    float const* tokens;
    ptrdiff_t stride;  // floats between tokens
  };
  static Panel panel_of(PartTask const& task, Tile const& tile) {
    if (task.keys.storage == Storage::kFp32 && is_even(task, tile))
      return {reinterpret_cast<float const*>(tile.latent[0]), task.keys.latent_token_bytes / static_cast<ptrdiff_t>(sizeof(float))};
    return {reinterpret_cast<float const*>(task.scratch.panel), kPanelStride};
  }
  /// A group goes into the panel just before its scores are due, while it fits L1.
  static void widen_group(PartTask const& task, Tile const& tile, int g) {
    float* row = reinterpret_cast<float*>(task.scratch.panel) + static_cast<ptrdiff_t>(g) * kGroupTokens * kPanelStride;
    for (int t = g * kGroupTokens; t < (g + 1) * kGroupTokens; ++t, row += kPanelStride) {
      widen(task.keys.storage, row, tile.latent[t], task.latent);
      widen(task.keys.storage, row + task.latent, tile.rope[t], task.rope);
    }
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

  /// Blocks innermost: queries pass as one stream, which prefetchers follow; 16 keys would be 16 streams.
  static void score(PartTask const& task, Tile const& tile, Panel const& panel, Prefetcher<Isa>* ahead) {
    int const qk_dim = task.latent + task.rope;
    float ones[kStepRows];
    for (float& one : ones) one = 1;
    int const pace = 3 * lines_per_product(task);
    bool const is_widened = panel.tokens == reinterpret_cast<float const*>(task.scratch.panel);
    for (int g = 0; g < tile.num_groups; ++g) {
      if (is_widened) widen_group(task, tile, g);
      for (int k = 0; k < qk_dim; k += kChunk) {
        float const* const keys = panel.tokens + g * kGroupTokens * panel.stride + k;
        int const count = qk_dim - k < kChunk ? qk_dim - k : kChunk;
        for (int block = 0, step; block < task.num_blocks; block += step) {
          step = step_blocks(task, block);
          ahead->some(pace * step);
          float const* const queries = block_queries(task, block) + k * kBlockRows;
          float* const scores = task.scratch.scores + (static_cast<ptrdiff_t>(block) * kTileTokens + g * kGroupTokens) * kBlockRows;
          float const* const alpha = k == 0 ? nullptr : ones;
          SecondBlock const second = {kTileTokens * kBlockRows, static_cast<ptrdiff_t>(qk_dim) * kBlockRows};
          if (is_widened) multiply(step, scores, alpha, {queries, count, keys, kPanelStride, 1, scores}, second);
          else multiply(step, scores, alpha, {queries, count, keys, panel.stride, 1, scores}, second);
        }
      }
    }
  }

  /// Columns outside, blocks inside: 16 columns of the panel stay in L1 while all rows pass.
  static void weigh_values(PartTask const& task, Tile const& tile, Panel const& panel, bool is_first, Prefetcher<Isa>* ahead) {
    int const pace = lines_per_product(task);
    SecondBlock const second = {static_cast<ptrdiff_t>(task.v_dim) * kBlockRows, kTileTokens * kBlockRows};
    for (int column = 0; column < task.v_dim; column += 16) {
      for (int block = 0, step; block < task.num_blocks; block += step) {
        step = step_blocks(task, block);
        ahead->some(pace * step);
        float* const acc = acc_tile(task, block, column);
        bool const is_last = block + step == task.num_blocks;
        float const* const soon =
            is_last && column + 16 == task.v_dim ? acc : acc_tile(task, is_last ? 0 : block + step, is_last ? column + 16 : column);
        float const* const probabilities = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
        float const* const alpha = is_first ? nullptr : task.scratch.alpha + block * kBlockRows;
        multiply(step, acc, alpha, {probabilities, tile.num_groups * kGroupTokens, panel.tokens + column, 1, panel.stride, soon}, second);
      }
    }
  }
  /// 16 columns of the output of a block.
  static float* acc_tile(PartTask const& task, int block, int column) {
    return task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
  }

  /// Lines of the next tile to ask for with each value product of a block; a key product is about three times as long. More at once
  /// than the 16 that a core can wait for would stop it.
  static int lines_per_product(PartTask const& task) {
    int const chunks = (task.latent + task.rope + kChunk - 1) / kChunk, products = kTileGroups * chunks * 3 + task.v_dim / 16;
    return kTileTokens * (task.latent + task.rope) * number_bytes(task.keys.storage) / 64 / (products * task.num_blocks) + 1;
  }

  /// Blocks that the next product takes at once.
  static int step_blocks(PartTask const& task, int block) { return Isa::kHasTileFmaPair && block + 1 < task.num_blocks ? 2 : 1; }
  static void multiply(int blocks, float* c, float const* alpha, FmaOperands const& x, SecondBlock const& second) {
    if constexpr (Isa::kHasTileFmaPair) {
      if (blocks == 2) return Isa::tile_fma_pair(c, alpha, x, second);
    }
    Isa::tile_fma(c, alpha, x);
  }
};

}  // namespace flashmla::cpu
