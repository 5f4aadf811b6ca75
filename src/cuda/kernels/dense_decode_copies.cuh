// How the producer of dense_decode.cuh brings a tile of 64 tokens into its stage: one class for each Paging.
//
// A tile's copies are four of two latent boxes (64 tokens x 64 columns, 128 bytes a row, swizzled) and one of RoPE, each with a
// barrier of its own; of 256 latent columns four of one box. kTiles: a copy is one TMA box, by one warp. kBoxes: a box of TMA holds
// eight tokens of all boxes of a half, so that a tile takes as few of them as it can, whatever the page size; of a half's two barriers
// the first stands for both. kRows: 16 bytes a thread by cp.async, 8 lanes to a row of 128 bytes. Both take four warps, each for a
// quarter of a tile's tokens: what they issue, not memory, would be the limit.
//
// Where RoPE has 32 columns, its tensor map ends behind them: TMA fills the rest of the box with zeros, and counts it as brought.
//
// Page ids outside the cache are recorded and masked. Entries of the table past the length are not read.
#pragma once

#include "cuda/kernels/dense_decode_state.cuh"
#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"

namespace flashmla::cuda::dense_decode {

/// Where KV and Q come from. They are read once: they must not push the schedule, the tables and the kernel's own code out of L2.
struct Sources {
  TensorMaps const& maps;
  DenseDecodeParams const& params;
  uint64_t policy;
};

/// A tile to load: the how many-th of the CTA's, the how many-th of its part, and its leading tokens that are not past the end.
struct TileLoad {
  uint32_t count;
  int32_t index;
  int32_t valid;
};

/// A copy of a tile: where it goes.
struct CopyTarget {
  uint32_t copy;    // 0 .. 3: kCopyBoxes boxes of latent columns each; kRopeCopy
  uint32_t shared;  // its first box
  uint64_t& full;
};

/// Tokens of a tile that a loader brings where there are several.
inline constexpr int kShare = kTileTokens / kLoaders<Paging::kBoxes>;

/// Calls `copy` for each copy of a tile once its part of the stage is free; before the first, `note` says what consumers have to
/// know. The half that the tile's owner does not multiply is let go first, and the owner reads the copies in the same order. A
/// warp with equal operands.
template <int kLatent, class Note, class Copy>
__device__ __forceinline__ void load_copies(Shared& s, TileLoad const& tile, Note const& note, Copy const& copy) {
  uint32_t const stage = tile.count % kStages, parity = (tile.count / kStages & 1) ^ 1;
  uint32_t const first_half = tile.index % 2 == 0 ? kRight : kLeft;
#pragma unroll
  for (int step = 0; step < kCopies; ++step) {
    bool const is_rope = step == 2;
    uint32_t const half = step < 2 ? first_half : 1 - first_half;
    uint32_t const index = is_rope ? kRopeCopy : half * 2 + (step < 2 ? step : step - 3);
    if (step != 1 && step != 4) ptx::mbarrier_wait(s.empty[stage][index / 2], parity);
    if (step == 0) note(stage);
    copy(CopyTarget{index, ptx::shared_address(s.kv[stage][index * kCopyBoxes<kLatent>]), s.full[stage][index]});
  }
}

/// A place in the cache.
struct PagePlace {
  int32_t page;
  int32_t token;  // in the page

  __device__ __forceinline__ bool is_in(StartParams const& start) const { return page >= 0 && page < start.num_pages; }
};

/// The pages of a part's request.
struct PageTable {
  StartParams const& start;
  int32_t const* entries;
  int32_t kv_len;

  __device__ __forceinline__ PageTable(StartParams const& start_params, Part const& part)
      : start(start_params), entries(start.page_table + part.rows.request * start.page_table_stride), kv_len(part.kv_len) {}
  __device__ __forceinline__ int32_t entry_of(int32_t token) const {
    return start.page_tokens == kTileTokens ? token / kTileTokens : token / start.page_tokens;
  }
  /// Of a token past the end: page 0.
  __device__ __forceinline__ PagePlace place_of(uint32_t token) const {
    if (token >= static_cast<uint32_t>(kv_len)) return {0, 0};
    int32_t const entry = entry_of(static_cast<int32_t>(token));
    return {__ldg(entries + entry), static_cast<int32_t>(token) - entry * start.page_tokens};
  }
};

__device__ __forceinline__ void record_bad_page(DenseDecodeParams const& params, Part const& part, int32_t entry, int32_t page) {
  record_fault(params.workspace, FLASHMLA_FAULT_PAGE_ID, part.rows.request, entry, page);
}

template <Paging kPaging, int kLatent>
class TileLoader;

/// A tile lies in one page.
template <int kLatent>
class TileLoader<Paging::kTiles, kLatent> {
 public:
  __device__ __forceinline__ TileLoader(Sources const& from, Part const& part, int32_t lane, int32_t)
      : from_(from), part_(part), table_(from.params.start, part), lane_(lane) {
    window_ = place_of(lane);
    next_ = place_of(lane + 32);
  }

  __device__ __forceinline__ void load(Shared& s, TileLoad const& tile) {
    if (tile.index > 0 && tile.index % 32 == 0) window_ = next_, next_ = place_of(tile.index + 32 + lane_);
    PagePlace const place{static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, window_.page, tile.index % 32))),
                          static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, window_.token, tile.index % 32)))};
    bool const exists = place.is_in(table_.start);
    if (!exists && lane_ == 0)
      record_bad_page(from_.params, part_, table_.entry_of((part_.first_tile + tile.index) * kTileTokens), place.page);
    auto const note = [&](uint32_t stage) { s.valid[stage] = exists ? tile.valid : 0; };
    load_copies<kLatent>(s, tile, note, [&](CopyTarget const& target) {
      if (!exists) {
        if (lane_ == 0) ptx::mbarrier_arrive(target.full);
        return;
      }
      bool const is_rope = target.copy == kRopeCopy;
      uint32_t const bytes = is_rope ? kBoxBytes : kCopyBoxes<kLatent> * kBoxBytes;
      int32_t const box = is_rope ? 0 : static_cast<int32_t>(target.copy) * kCopyBoxes<kLatent>;
      ptx::tma_load_5d({target.shared, ptx::shared_address(&target.full), bytes},
                       {is_rope ? &from_.maps.rope : &from_.maps.latent, from_.policy}, {place.token, box, part_.rows.kv_head, place.page});
    });
  }

 private:
  [[nodiscard]] __device__ __forceinline__ PagePlace place_of(int32_t tile) const {
    return tile < part_.num_tiles ? table_.place_of(static_cast<uint32_t>(part_.first_tile + tile) * kTileTokens) : PagePlace{0, 0};
  }

  Sources const& from_;
  Part const& part_;
  PageTable table_;
  int32_t lane_;
  PagePlace window_, next_;  // of 32 tiles and the 32 after them, a lane each
};

/// Every eight tokens lie in one page. Loader l brings the l-th quarter of every tile.
template <int kLatent>
class TileLoader<Paging::kBoxes, kLatent> {
 public:
  __device__ __forceinline__ TileLoader(Sources const& from, Part const& part, int32_t lane, int32_t loader)
      : from_(from), part_(part), table_(from.params.start, part), lane_(lane), loader_(loader) {
    window_ = place_of(lane);
    next_ = place_of(lane + 32);
  }

  __device__ __forceinline__ void load(Shared& s, TileLoad const& tile) {
    int32_t const first = tile.index * kAtoms % 32;
    if (tile.index > 0 && first == 0) window_ = next_, next_ = place_of(tile.index * kAtoms + 32 + lane_);
    int32_t const used = (min(max(tile.valid - loader_ * kShare, 0), kShare) + kAtomTokens - 1) / kAtomTokens;
    PagePlace places[kAtoms];
#pragma unroll
    for (int i = 0; i < kAtoms; ++i)
      places[i] = {static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, window_.page, first + i))),
                   static_cast<int32_t>(uniform(__shfl_sync(0xffffffffU, window_.token, first + i)))};
    auto const note = [&](uint32_t stage) {
      if (loader_ == 0) s.valid[stage] = tile.valid;
      s.holes[stage][loader_] = static_cast<uint16_t>(holes_of(places, used, tile.index));
    };
    load_copies<kLatent>(s, tile, note, [&](CopyTarget const& target) {
      if (target.copy == kRopeCopy) copy_atoms<1>(target, from_.maps.rope, places, used);
      else if (target.copy % 2 == 0) copy_atoms<kHalfBoxes<kLatent>>(target, from_.maps.latent, places, used);
    });
  }

 private:
  static constexpr int kAtomTokens = 8;
  static constexpr int kAtoms = kShare / kAtomTokens;

  [[nodiscard]] __device__ __forceinline__ PagePlace place_of(int32_t atom) const {
    int32_t const tile = atom / kAtoms;
    auto const share = static_cast<uint32_t>(part_.first_tile + tile) * kTileTokens + static_cast<uint32_t>(loader_ * kShare);
    return tile < part_.num_tiles ? table_.place_of(share + static_cast<uint32_t>(atom % kAtoms * kAtomTokens)) : PagePlace{0, 0};
  }

  /// kBoxes boxes of `used` atoms for one barrier. A page outside the cache: TMA fills the box with zeros.
  template <int kBoxes>
  __device__ __forceinline__ void copy_atoms(CopyTarget const& target, CUtensorMap const& map, PagePlace const (&places)[kAtoms],
                                             int32_t used) const {
    constexpr uint32_t kBytes = kBoxes * kAtomBytes;
    int32_t const first_box = kBoxes == 1 ? 0 : static_cast<int32_t>(target.copy) * kCopyBoxes<kLatent>;
    uint32_t const shared = target.shared + static_cast<uint32_t>(loader_) * kAtoms * kBytes, full = ptx::shared_address(&target.full);
    ptx::TmaSource const source{&map, from_.policy};
    if (used == 0 && lane_ == 0) ptx::mbarrier_arrive(target.full);
#pragma unroll
    for (int i = 0; i < kAtoms; ++i) {
      if (i >= used) break;
      ptx::TmaTarget const to{shared + static_cast<uint32_t>(i) * kBytes, full, static_cast<uint32_t>(used) * kBytes};
      ptx::TmaPosition const position{places[i].token, first_box, part_.rows.kv_head, places[i].page};
      if (i == 0) ptx::tma_load_5d(to, source, position);
      else ptx::tma_load_more_5d(to, source, position);
    }
  }

  /// The share's tokens in pages that do not exist, of which the first is recorded.
  [[nodiscard]] __device__ __forceinline__ uint32_t holes_of(PagePlace const (&places)[kAtoms], int32_t used, int32_t tile) const {
    uint32_t holes = 0;
#pragma unroll
    for (int i = 0; i < kAtoms; ++i) {
      if (i >= used || places[i].is_in(table_.start)) continue;
      int32_t const token = (part_.first_tile + tile) * kTileTokens + loader_ * kShare + i * kAtomTokens;
      if (holes == 0 && lane_ == 0) record_bad_page(from_.params, part_, table_.entry_of(token), places[i].page);
      holes |= 0xffU << (i * kAtomTokens);
    }
    return holes;
  }

  Sources const& from_;
  Part const& part_;
  PageTable table_;
  int32_t lane_, loader_;
  PagePlace window_, next_;  // of 32 of this loader's atoms and the 32 after them, a lane each
};

/// Tokens lie anywhere: a lane of the first 16 looks up one of each tile. Loaders as above.
template <int kLatent>
class TileLoader<Paging::kRows, kLatent> {
 public:
  __device__ __forceinline__ TileLoader(Sources const& from, Part const& part, int32_t lane, int32_t loader)
      : from_(from), part_(part), table_(from.params.start, part), lane_(lane), loader_(loader) {
    look_up(0);
  }

  __device__ __forceinline__ void load(Shared& s, TileLoad const& tile) {
    bool const is_valid = lane_ < kShare && loader_ * kShare + lane_ < tile.valid, exists = is_valid && next_.is_in(table_.start);
    uint32_t const holes = __ballot_sync(0xffffffffU, is_valid && !exists);
    if (holes != 0 && lane_ + 1 == __ffs(static_cast<int>(holes)))
      record_bad_page(from_.params, part_, table_.entry_of((part_.first_tile + tile.index) * kTileTokens + loader_ * kShare + lane_),
                      next_.page);
    Rows const rows = exists ? rows_of(next_) : Rows{-1, -1};
    look_up(tile.index + 1);
    auto const note = [&](uint32_t stage) {
      if (loader_ == 0) s.valid[stage] = tile.valid;
      s.holes[stage][loader_] = static_cast<uint16_t>(holes);
    };
    load_copies<kLatent>(s, tile, note, [&](CopyTarget const& target) {
      if (target.copy == kRopeCopy) {
        bool const is_beyond = is_rope_short<kLatent>(from_.params) && lane_ % 8 >= 4;
        copy_rows<1>(target, from_.params.call.kpe, rows.rope, 0, is_beyond);
      } else {
        constexpr int kCopied = kCopyBoxes<kLatent>;
        copy_rows<kCopied>(target, from_.params.call.ckv, rows.latent, target.copy * kCopied * kSwizzleRowBytes, false);
      }
      ptx::cp_async_arrive(ptx::shared_address(&target.full));
    });
  }

 private:
  /// Where a token's rows begin, in bytes from the tensors' bases; -1: there is none.
  struct Rows {
    int64_t latent, rope;
  };

  __device__ __forceinline__ void look_up(int32_t tile) {
    auto const first = static_cast<uint32_t>(part_.first_tile + tile) * kTileTokens;
    next_ = tile < part_.num_tiles ? table_.place_of(first + static_cast<uint32_t>(loader_ * kShare + lane_)) : PagePlace{0, 0};
  }

  [[nodiscard]] __device__ __forceinline__ Rows rows_of(PagePlace const& place) const {
    core::DecodeCall const& call = from_.params.call;
    int32_t const head = part_.rows.kv_head;
    return {2 * (place.page * call.ckv_page_stride + place.token * call.ckv_token_stride + head * call.ckv_head_stride),
            2 * (place.page * call.kpe_page_stride + place.token * call.kpe_token_stride + head * call.kpe_head_stride)};
  }

  /// kBoxes boxes of the share's rows, whose first bytes lie `column` behind `offset` of the lane that has the row. A step copies
  /// four rows, 8 lanes each; rows that do not exist become zeros, and 16-byte columns that lie `is_beyond` RoPE's last.
  template <int kBoxes>
  __device__ __forceinline__ void copy_rows(CopyTarget const& target, void const* base, int64_t offset, uint32_t column,
                                            bool is_beyond) const {
    auto const first = static_cast<uint32_t>(loader_ * kShare + lane_ / 8), chunk = static_cast<uint32_t>(lane_ % 8);
    char const* const source = static_cast<char const*>(base) + column + (is_beyond ? 0 : chunk * 16);
    constexpr int kSteps = kShare / 4;
    char const* rows[kSteps];
    bool is_zero[kSteps];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      int64_t const row = __shfl_sync(0xffffffffU, offset, step * 4 + lane_ / 8);
      is_zero[step] = row < 0 || is_beyond, rows[step] = source + (row < 0 ? 0 : row);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int box = 0; box < kBoxes; ++box)
        ptx::cp_async_16_or_zeros(
            target.shared + swizzled_offset(first + step % 2 * 4, chunk) + step / 2 * 8 * kSwizzleRowBytes + box * kBoxBytes,
            rows[step] + box * kSwizzleRowBytes, is_zero[step]);
  }

  Sources const& from_;
  Part const& part_;
  PageTable table_;
  int32_t lane_, loader_;
  PagePlace next_;  // of the lane's token of the next tile
};

}  // namespace flashmla::cuda::dense_decode
