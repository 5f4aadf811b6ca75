// From token positions to memory: groups of 16 tokens, used in place where they lie evenly inside one page.
//
// Everything that must not be computed with is caught here: tokens past the end (their memory may hold NaN, and
// 0 * NaN = NaN) and tokens of pages that do not exist become zeros in a staging buffer.
#pragma once

#include <string.h>

#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

/// 16 tokens, `latent_bytes` and `rope_bytes` apart.
struct TokenGroup {
  char const* latent;
  char const* rope;
  int64_t latent_bytes, rope_bytes;
  uint32_t missing;  // bit t: token t is on a page that does not exist
  bool in_place;
};

template <class Isa>
struct Pages {
  /// A page id of the table, or -1 with the fault noted.
  static int64_t page_id(PartTask const& task, int32_t page) {
    int32_t const id = task.keys.page_table[page];
    if (id >= 0 && id < task.keys.num_pages) return id;
    if (!task.fault->found) *task.fault = {true, page, id};
    return -1;
  }

  /// Where tokens [token, token + 16) lie; in_place is false when they have to be staged.
  static TokenGroup locate(PartTask const& task, int32_t token) {
    PagedKeys const& keys = task.keys;
    TokenGroup group = {nullptr, nullptr, keys.latent_token_bytes, keys.rope_token_bytes, 0, false};
    int32_t const page = token / keys.page_tokens, offset = token - page * keys.page_tokens;
    if (token + kGroupTokens > task.last_token || offset + kGroupTokens > keys.page_tokens) return group;
    int64_t const id = page_id(task, page);
    if (id < 0) return group;
    group.latent = keys.latent + id * keys.latent_page_bytes + offset * keys.latent_token_bytes;
    group.rope = keys.rope + id * keys.rope_page_bytes + offset * keys.rope_token_bytes;
    group.in_place = true;
    return group;
  }

  /// Copies the group at `token` to `staged` [16][latent + rope], zeros where there is nothing to attend to.
  static TokenGroup stage(PartTask const& task, int32_t token, uint16_t* staged) {
    PagedKeys const& keys = task.keys;
    int32_t const qk_dim = task.latent + task.rope;
    int64_t const bytes = qk_dim * static_cast<int64_t>(sizeof(uint16_t));
    TokenGroup group = {reinterpret_cast<char const*>(staged), reinterpret_cast<char const*>(staged + task.latent), bytes, bytes, 0, false};
    for (int t = 0; t < kGroupTokens; ++t, staged += qk_dim) {
      bool const inside = token + t < task.last_token;
      int32_t const page = (token + t) / keys.page_tokens, offset = (token + t) - page * keys.page_tokens;
      int64_t const id = inside ? page_id(task, page) : -1;
      if (id < 0) {
        memset(staged, 0, static_cast<size_t>(bytes));
        group.missing |= inside ? 1u << t : 0u;
        continue;
      }
      memcpy(staged, keys.latent + id * keys.latent_page_bytes + offset * keys.latent_token_bytes, static_cast<size_t>(task.latent) * 2);
      memcpy(staged + task.latent, keys.rope + id * keys.rope_page_bytes + offset * keys.rope_token_bytes,
             static_cast<size_t>(task.rope) * 2);
    }
    return group;
  }
};

/// The groups of one tile.
struct Tile {
  int32_t first_token;
  int32_t num_groups;
  TokenGroup groups[kTileGroups];
};

template <class Isa>
struct Tiles {
  static void locate(PartTask const& task, int32_t first_token, Tile* tile) {
    tile->first_token = first_token;
    tile->num_groups = 0;
    for (int32_t token = first_token; token < task.last_token && tile->num_groups < kTileGroups; token += kGroupTokens)
      tile->groups[tile->num_groups++] = Pages<Isa>::locate(task, token);
  }
  /// Fills in the groups that could not be used in place.
  static void stage(PartTask const& task, Tile* tile) {
    int32_t const qk_dim = task.latent + task.rope;
    for (int g = 0; g < tile->num_groups; ++g) {
      if (tile->groups[g].in_place) continue;
      tile->groups[g] = Pages<Isa>::stage(task, tile->first_token + g * kGroupTokens,
                                          task.scratch.staged + static_cast<ptrdiff_t>(g) * kGroupTokens * qk_dim);
    }
  }
};

}  // namespace flashmla::cpu
