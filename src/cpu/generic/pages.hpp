// From token positions to memory: where each token of a tile lies, whatever the size of a page.
//
// Everything that must not be computed with is caught here: tokens past the end (their memory may hold NaN, and
// 0 * NaN = NaN) and tokens of pages that do not exist point to zeros.
#pragma once

#include <string.h>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

/// Stands for a token that is not there; as long as the longest latent or rope part.
alignas(64) inline constexpr float kZeroToken[512] = {};

/// 16 tokens, `latent_bytes` and `rope_bytes` apart.
struct TokenGroup {
  char const* latent;
  char const* rope;
  int64_t latent_bytes, rope_bytes;
};

/// Consecutive tokens of a part, at most kTileTokens.
struct Tile {
  int32_t first_token;
  int32_t num_groups;               // of kGroupTokens; the last may end in tokens past the part
  uint64_t missing;                 // bit t: token t is past the part, or on a page that does not exist
  char const* latent[kTileTokens];  // every pointer is valid, in groups that are not used too
  char const* rope[kTileTokens];
  bool is_even[kTileGroups];  // the tokens of a group lie one token apart, inside a page
};

template <class Isa>
struct Tiles {
  static void locate(PartTask const& task, int32_t first_token, Tile* tile) {
    PagedKeys const& keys = task.keys;
    int32_t const left = task.last_token - first_token, num_tokens = left < kTileTokens ? (left < 0 ? 0 : left) : kTileTokens;
    tile->first_token = first_token;
    tile->num_groups = (num_tokens + kGroupTokens - 1) / kGroupTokens;
    tile->missing = num_tokens == kTileTokens ? 0 : ~uint64_t{0} << num_tokens;
    for (bool& is_even : tile->is_even) is_even = false;
    int32_t page = first_token / keys.page_tokens, offset = first_token - page * keys.page_tokens;
    int t = 0;
    while (t < num_tokens) {
      int32_t const in_page = keys.page_tokens - offset, count = in_page < num_tokens - t ? in_page : num_tokens - t;
      int64_t const id = page_id(task, page);
      if (id < 0) {
        for (int i = 0; i < count; ++i) point_to_zeros(tile, t + i);
        tile->missing |= (count == kTileTokens ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << t;
      } else {
        char const* latent = keys.latent + id * keys.latent_page_bytes + offset * keys.latent_token_bytes;
        char const* rope = keys.rope + id * keys.rope_page_bytes + offset * keys.rope_token_bytes;
        for (int i = 0; i < count; ++i, latent += keys.latent_token_bytes, rope += keys.rope_token_bytes) {
          tile->latent[t + i] = latent;
          tile->rope[t + i] = rope;
        }
        for (int g = (t + kGroupTokens - 1) / kGroupTokens; (g + 1) * kGroupTokens <= t + count; ++g) tile->is_even[g] = true;
      }
      t += count;
      offset = 0;
      ++page;
    }
    for (; t < kTileTokens; ++t) point_to_zeros(tile, t);
  }

  /// A group of 16-bit numbers as one block of memory: in place where that can be, else copied to `staged` [16][latent + rope].
  static TokenGroup gather(PartTask const& task, Tile const& tile, int g, uint16_t* staged) {
    int const first = g * kGroupTokens, qk_dim = task.latent + task.rope;
    if (tile.is_even[g]) return {tile.latent[first], tile.rope[first], task.keys.latent_token_bytes, task.keys.rope_token_bytes};
    int64_t const bytes = qk_dim * static_cast<int64_t>(sizeof(uint16_t));
    TokenGroup const group = {reinterpret_cast<char const*>(staged), reinterpret_cast<char const*>(staged + task.latent), bytes, bytes};
    for (int t = first; t < first + kGroupTokens; ++t, staged += qk_dim) {
      memcpy(staged, tile.latent[t], static_cast<size_t>(task.latent) * sizeof(uint16_t));
      memcpy(staged + task.latent, tile.rope[t], static_cast<size_t>(task.rope) * sizeof(uint16_t));
    }
    return group;
  }

 private:
  /// A page id of the table, or -1 with the fault noted.
  static int64_t page_id(PartTask const& task, int32_t page) {
    int32_t const id = task.keys.page_table[page];
    if (id >= 0 && id < task.keys.num_pages) return id;
    if (!task.fault->found) *task.fault = {true, page, id};
    return -1;
  }
  static void point_to_zeros(Tile* tile, int t) {
    tile->latent[t] = reinterpret_cast<char const*>(kZeroToken);
    tile->rope[t] = reinterpret_cast<char const*>(kZeroToken);
  }
};

/// Asks for the lines of tiles, a few at a time, so that they arrive in L2 while those before them are computed.
template <class Isa>
struct Prefetcher {
  Tile const* tile;
  int tiles_left, first_token, end_token;
  int latent_bytes, rope_bytes;
  int token, byte = 0;
  int pace = 1;  // lines that some() asks for
  bool on_small_pages;

  /// Tokens [first, end) of each of num_tiles consecutive tiles.
  Prefetcher(PartTask const& task, Tile const* ahead, int num_tiles = 1, int first = 0, int end = kTileTokens)
      : tile(ahead),
        tiles_left(num_tiles),
        first_token(first),
        end_token(end),
        latent_bytes(task.latent * number_bytes(task.keys.storage)),
        rope_bytes(task.rope * number_bytes(task.keys.storage)),
        token(first),
        on_small_pages(task.keys.page_tokens < kWalkTokens) {}

  /// Asks for both ends of each token of a tile that is due after the next. What counts is the translation of their addresses: a walk
  /// through page tables, for which the lines asked for later would have to wait (docs/perf/2026-11-26-cpu-amx.md).
  static void translate(PartTask const& task, Tile const& far) { Prefetcher(task, &far).touch(0, far.num_groups * kGroupTokens); }
  /// Asks for both ends of tokens [first, end).
  void touch(int first, int end) const {
    for (int t = first; t < end; ++t) {
      Isa::prefetch(tile->latent[t]);
      Isa::prefetch(tile->rope[t] + rope_bytes - 1);
    }
  }

  /// Asks for `count` strips: 4 lines of a token's latent part, and a line of rope with each of the first. Where products are short this is
  /// cheaper than some(), which ends its loops in the middle of a token and has each end predicted wrongly. On small
  /// pages both ends of 8 tokens go first: each waits for a walk through page tables, and those of 8 go side by side.
  void strips(int count) {
    for (; count > 0 && token < tile->num_groups * kGroupTokens; --count) {
      if (on_small_pages && byte == 0 && token % kWalkTokens == 0) touch(token, token + kWalkTokens);
      int const strip = byte / kStripBytes, rope_byte = strip * 64;
      char const* const from = tile->latent[token] + byte;
      Isa::prefetch(from);
      Isa::prefetch(from + 64);
      Isa::prefetch(from + 128);
      Isa::prefetch(from + 192);
      Isa::prefetch(rope_byte < rope_bytes ? tile->rope[token] + rope_byte : from);
      byte += kStripBytes;
      bool const is_last = byte >= latent_bytes;
      token += is_last ? 1 : 0;
      byte = is_last ? 0 : byte;
    }
  }
  static constexpr int kStripBytes = 256;
  static constexpr int kWalkTokens = 8;

  void all() { some(kTileTokens * (latent_bytes + rope_bytes)); }
  void some() { some(pace); }
  void some(int lines) {
    while (lines > 0 && tiles_left > 0) {
      if (token >= end_token || token >= tile->num_groups * kGroupTokens) {
        ++tile;
        --tiles_left;
        token = first_token;
        continue;
      }
      bool const in_latent = byte < latent_bytes;
      char const* const from = in_latent ? tile->latent[token] + byte : tile->rope[token] + (byte - latent_bytes);
      int const end = in_latent ? latent_bytes : latent_bytes + rope_bytes, left = (end - byte + 63) / 64,
                count = lines < left ? lines : left;
      for (int i = 0; i < count; ++i) Isa::prefetch(from + i * 64);
      lines -= count;
      byte = count == left ? end : byte + count * 64;
      if (byte < latent_bytes + rope_bytes) continue;
      byte = 0;
      ++token;
    }
  }
};

}  // namespace flashmla::cpu
