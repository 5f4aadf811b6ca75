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

  static void run(PartTask const& task) {
    Tile tiles[2];
    Tiles<Isa>::locate(task, task.first_token, &tiles[0]);
    Prefetcher<Isa>(task, &tiles[0]).all();
    pack_queries(task);
    Softmax<Isa>::begin(task);
    int at = 0;
    for (int32_t token = task.first_token; token < task.last_token; token += kTileTokens, at ^= 1) {
      Tile const& tile = tiles[at];
      Tile& next = tiles[at ^ 1];
      Tiles<Isa>::locate(task, token + kTileTokens, &next);
      Panel const panel = panel_of(task, tile);
      Prefetcher<Isa> ahead(task, &next);
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
  static void widen_tokens(PartTask const& task, Tile const& tile, int first, int end) {
    float* row = reinterpret_cast<float*>(task.scratch.panel) + static_cast<ptrdiff_t>(first) * kPanelStride;
    for (int t = first; t < end; ++t, row += kPanelStride) {
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

  /// Blocks innermost: queries pass as one stream, which prefetchers follow; 16 keys would be 16 streams. Tokens go into the panel one
  /// group ahead, a few between two products: L2 takes their lines more slowly than they are widened.
  static void score(PartTask const& task, Tile const& tile, Panel const& panel, Prefetcher<Isa>* ahead) {
    int const qk_dim = task.latent + task.rope, num_tokens = tile.num_groups * kGroupTokens;
    float ones[kStepRows];
    for (float& one : ones) one = 1;
    int const strips = is_short(task) ? strips_per_product(task) : 0, products = score_products(task);
    int const chunk = numbers_per_product(task), share = (kGroupTokens + products - 1) / products;
    int widened = panel.tokens == reinterpret_cast<float const*>(task.scratch.panel) ? 0 : num_tokens;
    auto const widen_until = [&](int end) {
      if (widened < end) widen_tokens(task, tile, widened, end);
      widened = widened < end ? end : widened;
    };
    for (int g = 0; g < tile.num_groups; ++g) {
      widen_until((g + 1) * kGroupTokens);
      for (int k = 0; k < qk_dim; k += chunk) {
        float const* const keys = panel.tokens + g * kGroupTokens * panel.stride + k;
        int const count = qk_dim - k < chunk ? qk_dim - k : chunk;
        for (int block = 0, step; block < task.num_blocks; block += step) {
          step = step_blocks(task, block);
          ahead->strips(strips);
          float const* const queries = block_queries(task, block) + k * kBlockRows;
          float* const scores = task.scratch.scores + (static_cast<ptrdiff_t>(block) * kTileTokens + g * kGroupTokens) * kBlockRows;
          float const* const alpha = k == 0 ? nullptr : ones;
          SecondBlock const second = {kTileTokens * kBlockRows, static_cast<ptrdiff_t>(qk_dim) * kBlockRows};
          if (panel.stride == kPanelStride) multiply(step, scores, alpha, {queries, count, keys, kPanelStride, 1}, second);
          else multiply(step, scores, alpha, {queries, count, keys, panel.stride, 1}, second);
          widen_until(widened + share < num_tokens ? widened + share : num_tokens);
        }
      }
    }
  }

  /// Blocks outside, columns inside: the probabilities of 16 or 32 rows, 4 or 8 KiB, stay in L1 while values and outputs pass.
  static void weigh_values(PartTask const& task, Tile const& tile, Panel const& panel, bool is_first, Prefetcher<Isa>* ahead) {
    int const strips = strips_per_product(task);
    SecondBlock const second = {static_cast<ptrdiff_t>(task.v_dim) * kBlockRows, kTileTokens * kBlockRows};
    for (int block = 0, step; block < task.num_blocks; block += step) {
      step = step_blocks(task, block);
      float const* const probabilities = task.scratch.scores + static_cast<ptrdiff_t>(block) * kTileTokens * kBlockRows;
      float const* const alpha = is_first ? nullptr : task.scratch.alpha + block * kBlockRows;
      for (int column = 0; column < task.v_dim; column += 16) {
        ahead->strips(strips);
        multiply(step, acc_tile(task, block, column), alpha,
                 {probabilities, tile.num_groups * kGroupTokens, panel.tokens + column, 1, panel.stride}, second);
      }
    }
  }
  /// 16 columns of the output of a block.
  static float* acc_tile(PartTask const& task, int block, int column) {
    return task.scratch.acc + (static_cast<ptrdiff_t>(block) * task.v_dim + column) * kBlockRows;
  }

  /// With few rows a tile is over before memory has sent the next one, unless that is asked for during both products.
  static bool is_short(PartTask const& task) { return task.num_blocks <= 2; }
  /// Strips of the next tile to ask for with each product: of values alone where there is time, since those are short, and a core that
  /// waits for 16 lines takes none from L2 either. No address is translated further ahead: that costs more walks, and saves no time.
  static int strips_per_product(PartTask const& task) {
    int const of_values = task.v_dim / 16 * num_steps(task), of_scores = is_short(task) ? kTileGroups * score_products(task) : 0,
              products = of_values + of_scores,
              strips = kTileTokens * task.latent * number_bytes(task.keys.storage) / Prefetcher<Isa>::kStripBytes;
    return (strips + products - 1) / products;
  }
  /// Of a key: all, so that scores stay in registers until they are done, or with few rows so many that no product asks for many lines.
  static int numbers_per_product(PartTask const& task) { return is_short(task) ? 96 : task.latent + task.rope; }
  /// Products of one group of tokens.
  static int score_products(PartTask const& task) {
    return ((task.latent + task.rope - 1) / numbers_per_product(task) + 1) * num_steps(task);
  }
  static int num_steps(PartTask const& task) { return Isa::kHasTileFmaPair ? (task.num_blocks + 1) / 2 : task.num_blocks; }

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
