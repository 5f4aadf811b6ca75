// Dense MLA decode on Hopper: 64 rows (query token, head) by 64-token tiles, both products on wgmma.
//
// Math. For the 64 rows of this CTA and tile t of 64 tokens (src/reference/decode.cpp is the definition):
//   S_t = Q K_t^T;  m_t = m_{t-1}, or rowmax(c S_t) where that is more than 8 larger (c = scale * log2 e);
//   P_t = 2^(c S_t - m_t);  O <- 2^(m_{t-1} - m_t) O + P_t V_t;  l <- 2^(m_{t-1} - m_t) l + rowsum(P_t)
//   out = O / l, lse = m + log2 l. V_t is the first 512 columns of K_t: one copy in shared memory serves both products.
//   A lazy maximum (P up to 2^8) leaves O alone in nearly every tile and loses nothing: P keeps its relative precision.
//
// Roles. Warpgroup 0 (left) and 1 (right) each hold a 64 x 256 half of O in registers (128 a thread). Tile t of a part
//   belongs to warpgroup t % 2: it computes S_t and P_t, and gives P_t and m_t to the other, since every half of O needs
//   every P. Warp 8 (producer) walks the same parts and keeps two tiles of KV in flight with TMA. Warps 9 and 10 (finishers) tell
//   other CTAs that a first half of a pair is in memory, so that no consumer waits for its own writes. Warp 11 idles.
//
// Timeline (own tiles of the left warpgroup are even; `|` is a wait for the other):
//   left : QK(0) softmax(0) PV(0)l               | PV(1)l QK(2) softmax(2) PV(2)l | ...
//   right:                         | PV(0)r QK(1) softmax(1) PV(1)r | PV(2)r QK(3) ...
//   producer: tile t + 2 goes out region by region as tile t's left half, right half and RoPE are let go.
//
// Shared memory (bytes; everything 1,024-aligned, rows of 128 bytes swizzled):
//   q    8 x 8,192   =  65,536   latent columns of Q; its RoPE columns live in registers as A fragments
//   kv   2 x 9 x 8,192 = 147,456 two stages of 64 tokens x 576: boxes of 64 columns, the ninth is RoPE
//   p    2 x 8,192   =  16,384   P of each warpgroup's current tile
//   rest              =   1,792  row maxima and sums, valid tokens, barriers
//   total 231,168, padded to 231,424 of 232,448
//
// Barriers (phase = use count of the stage or of the publication, parity):
//   full[stage][copy]      producer's expect_tx -> owner of the tile: two boxes, or RoPE, have landed (16,384 / 8,192 bytes)
//   empty[stage][region]   4 warps -> producer: left (PV left done), right (PV right done), rope (QK done). P is published
//                          after its QK, so a finished PV half implies that QK has let go of that half as well.
//   p_ready[warpgroup]     4 warps -> the other warpgroup: P, m and zeroed tails of the tile are in shared memory
//   p_free[warpgroup]      4 warps of the other -> owner: its P has been consumed
//   published[event]       8 warps -> finisher: the first half of a pair is written, or there is no further one (once)
//   q_full                 producer's expect_tx -> both warpgroups: the part's Q has landed (65,536 bytes)
//   q_free                 8 warps -> producer: the part's last QK is done, the next part's Q may come (phase = part)
//
// Registers. 384 threads start with 168; consumers take 240, the producer 24. O 128, S 32, P 16, RoPE of Q 16.
//
// Limits. Pages of 64 tokens, h_kv 1, cache fused in one tensor, base and page stride multiples of 16 bytes.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/parts.hpp"
#include "core/schedule.hpp"
#include "core/visible.hpp"
#include "core/workspace.hpp"
#include "cuda/kernels/dense_decode.hpp"
#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/math.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/sync.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/tile/fragment.hpp"
#include "cuda/tile/matrix_descriptor.hpp"
#include "cuda/tile/swizzle.hpp"

namespace flashmla::cuda::dense_decode {

inline constexpr int kLatent = 512;
inline constexpr int kQkDim = 576;
inline constexpr int kBoxBytes = 64 * kSwizzleRowBytes;  // 64 tokens or rows x 64 columns
inline constexpr int kLatentBoxes = 8;
inline constexpr int kBoxes = 9;
inline constexpr int kCopyBoxes = 2;  // latent boxes of one copy
inline constexpr int kCopies = 5;     // of a tile: four of latent columns, one of RoPE
inline constexpr int kRopeCopy = 4;
inline constexpr int kStages = 2;
inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kConsumerThreads = 2 * kWarpgroupThreads;
inline constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kConsumerRegisters = 240;
inline constexpr int kProducerRegisters = 24;
inline constexpr float kLazyMaximum = 8.0F;  // log2 units; P stays below 2^8

/// What TMA reads from; a kernel parameter.
struct TensorMaps {
  CUtensorMap latent, rope, q;
};

struct Shared {
  alignas(1024) uint8_t q[kLatentBoxes][kBoxBytes];
  alignas(1024) uint8_t kv[kStages][kBoxes][kBoxBytes];
  alignas(1024) uint8_t p[2][kBoxBytes];
  float row_max[2][kCtaRows];  // [warpgroup]: m after its latest tile
  float row_sum[2][2][kCtaRows];  // [part % 2][warpgroup]: its share of l
  int32_t valid[kStages];      // leading tokens of the tile that exist
  uint32_t arrival[2];         // [part % 2]: what claim_pair found
  uint32_t* publish[2];        // [event]: counter of a pair whose first half this CTA has written; null for none
  uint64_t full[kStages][kCopies];
  uint64_t empty[kStages][3];
  uint64_t p_ready[2];
  uint64_t p_free[2];
  uint64_t published[2];
  uint64_t q_full;
  uint64_t q_free;
};
static_assert(sizeof(Shared) <= 232448);

enum Region : int { kLeft = 0, kRight = 1, kRope = 2 };
enum NamedBarrier : int { kConsumersBarrier = 1, kWarpgroupBarrier = 2 };  // kWarpgroupBarrier + warpgroup

/// A part as one CTA sees it, with bounds from the call's own lengths.
struct Part {
  int32_t request;
  int32_t row_begin;   // of this CTA, among the request's rows
  int32_t first_tile;
  int32_t num_tiles;   // may be 0
  int32_t kv_len;
  int32_t split;       // index among the parts of the item
  bool is_whole;       // the item's only part
  bool is_pair;        // one of two: the two CTAs merge between themselves
};

/// The parts of this CTA's worker that have rows for it; every role walks the same ones.
class CtaWalk {
 public:
  __device__ __forceinline__ CtaWalk(DenseDecodeParams const& params, core::WorkerBegin const (&begins)[3], int32_t num_row_tiles)
      : params_(params), walk_(begins[0], begins[1], num_row_tiles, kTileTokens), end_(begins[1]), after_(begins[2]), first_tile_(begins[0].tile) {}

  __device__ __forceinline__ int32_t request() const { return walk_.request(); }
  __device__ __forceinline__ int32_t first_tile() const { return first_tile_; }

  /// The table's entry `ahead` tiles into the first part, before its length is known; junk past the length.
  __device__ __forceinline__ int32_t peek_page(int32_t ahead) const {
    if (!walk_.has_item() || first_tile_ + ahead >= params_.call.table_pages) return 0;
    return __ldg(params_.call.page_table + walk_.request() * params_.call.page_table_stride + first_tile_ + ahead);
  }

  /// False at the end.
  __device__ __forceinline__ bool next(Part& part) {
    while (walk_.has_item()) {
      int64_t const limit = core::length_limit(params_.call.table_pages, kTileTokens, params_.max_kv_len);
      part.kv_len = core::clamp_length(params_.call.kv_len[walk_.request()], limit);
      core::Part const found = walk_.part(part.kv_len);
      walk_.advance();
      part.request = found.request;
      part.row_begin = (found.row_tile * params_.group + static_cast<int32_t>(blockIdx.x)) * kCtaRows;
      part.first_tile = found.first_token / kTileTokens;
      part.num_tiles = (found.last_token + kTileTokens - 1) / kTileTokens - part.first_tile;
      if (found.last_token == found.first_token) part.num_tiles = 0;
      part.split = found.split;
      part.is_whole = found.is_whole;
      part.is_pair = !found.is_whole && found.split < 2 && !continues(found.split == 0 ? after_ : end_, found);
      if (part.row_begin < params_.call.q_tokens * params_.h_q) return true;
    }
    return false;
  }

 private:
  static __device__ __forceinline__ bool continues(core::WorkerBegin const& begin, core::Part const& part) {
    return begin.tile > 0 && begin.request == part.request && begin.row_tile == part.row_tile;
  }

  DenseDecodeParams const& params_;
  core::PartWalk walk_;
  core::WorkerBegin end_, after_;  // where the next worker starts, and the one after it
  int32_t first_tile_;
};

/// Keeps the first fault of a run; later ones are dropped. Out of line: cold code in the way costs instruction fetches.
__device__ __noinline__ void record_fault(void* workspace, int32_t code, int32_t request, int32_t position, int32_t value) {
  flashmla_fault& fault = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  if (atomicCAS(&fault.code, FLASHMLA_FAULT_NONE, code) != FLASHMLA_FAULT_NONE) return;
  fault.request = request;
  fault.position = position;
  fault.value = value;
}

// ------------------------------------------------------------------------------------------------ producer --

/// One tile into its stage, region by region. The half that the tile's owner does not multiply is let go first, and the
/// owner reads the copies in the same order.
__device__ __forceinline__ void load_tile(Shared& s, TensorMaps const& maps, uint32_t count, int32_t owner, int32_t page, int32_t valid) {
  uint32_t const stage = count % kStages, parity = (count / kStages) & 1;
#pragma unroll
  for (int step = 0; step < 3; ++step) {
    int const region = step == 1 ? kRope : ((step == 0) == (owner == 0) ? kRight : kLeft);
    int const first = region == kRope ? kRopeCopy : region * 2, copies = region == kRope ? 1 : 2;
    ptx::mbarrier_wait(s.empty[stage][region], parity ^ 1);
    if (step == 0) s.valid[stage] = valid;
#pragma unroll
    for (int i = 0; i < copies; ++i) {
      int const copy = first + i;
      uint64_t& full = s.full[stage][copy];
      if (valid > 0) {
        ptx::mbarrier_arrive_expect_tx(full, (region == kRope ? 1 : kCopyBoxes) * kBoxBytes);
        if (region == kRope) ptx::tma_load_4d(s.kv[stage][kLatentBoxes], &maps.rope, full, make_int4(0, 0, 0, page));
        else ptx::tma_load_4d(s.kv[stage][copy * kCopyBoxes], &maps.latent, full, make_int4(0, 0, copy * kCopyBoxes, page));
      } else {
        ptx::mbarrier_arrive(full);
      }
    }
  }
}

__device__ __forceinline__ void check_length(DenseDecodeParams const& params, Part const& part) {
  int32_t const length = params.call.kv_len[part.request];
  if (length == part.kv_len && (params.max_kv_len == 0 || length <= params.max_kv_len)) return;
  record_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, part.request, 0, length);
}

/// The part's Q; ahead of its KV, which would otherwise keep it waiting.
__device__ __forceinline__ void load_q(Shared& s, CUtensorMap const* map, Part const& part, uint32_t part_index) {
  ptx::mbarrier_wait(s.q_free, (part_index & 1) ^ 1);
  ptx::mbarrier_arrive_expect_tx(s.q_full, kLatentBoxes * kBoxBytes);
  ptx::tma_load_4d(s.q, map, s.q_full, make_int4(0, part.row_begin, 0, part.request));
}

__device__ __forceinline__ void produce(Shared& s, TensorMaps const& maps, DenseDecodeParams const& params, CtaWalk walk) {
  int const lane = threadIdx.x % 32;
  uint32_t count = 0;
  int32_t const first_request = walk.request(), first_tile = walk.first_tile();
  int32_t const first_pages = walk.peek_page(lane);  // in flight together with the length
  Part part;
  for (uint32_t part_index = 0; walk.next(part); ++part_index) {
    if (lane == 0) {
      if (params.q_is_tensor) load_q(s, &maps.q, part, part_index);
    }
    __syncwarp();
    int32_t const* const table = params.call.page_table + part.request * params.call.page_table_stride + part.first_tile;  // [num_tiles]
    auto const page_of = [&](int32_t tile) { return tile < part.num_tiles ? __ldg(table + tile) : 0; };
    int32_t pages = part_index == 0 && part.request == first_request && part.first_tile == first_tile ? first_pages : page_of(lane), next_pages = page_of(lane + 32);  // a window of 32 tiles, and the one after it
    for (int32_t i = 0; i < part.num_tiles; ++i, ++count) {
      if (i > 0 && i % 32 == 0) {
        pages = next_pages;
        next_pages = page_of(i + 32 + lane);
      }
      int32_t const page = __shfl_sync(0xffffffffU, pages, i % 32);
      bool const exists = page >= 0 && page < params.call.num_pages;
      int32_t const left = part.kv_len - (part.first_tile + i) * kTileTokens;
      if (lane == 0) {
        if (!exists) record_fault(params.workspace, FLASHMLA_FAULT_PAGE_ID, part.request, part.first_tile + i, page);
        load_tile(s, maps, count, i % 2, page, exists ? min(left, kTileTokens) : 0);
      }
      __syncwarp();
    }
    if (lane == 0) check_length(params, part);
  }
}

// ----------------------------------------------------------------------------------------------- consumers --

/// What a consumer thread keeps about its two rows (halves 0 and 1, 8 rows apart) and its half of O.
struct RowState {
  float o[128];         // [32 blocks of 8 columns][2 rows][2 columns] of the warpgroup's 64 x 256 half
  float max[2];         // m: reference of o and sum, log2 units
  float sum[2];         // this thread's share of l, from its warpgroup's own tiles
  int32_t visible[2];   // keys that the row sees
};

struct Consumer {
  int32_t warpgroup;  // 0 left, 1 right
  int32_t thread;     // in the warpgroup
  int32_t lane;
  uint32_t published[2];  // tiles published so far by each warpgroup
  uint32_t claim;         // what claim_pair found, in thread 0
  uint32_t events;        // first halves of pairs written so far; a CTA has at most two parts that are not whole
};

/// The same value in every lane, said so that the compiler knows: descriptors made of it live in uniform registers.
__device__ __forceinline__ uint32_t uniform(uint32_t value) { return __shfl_sync(0xffffffffU, value, 0); }

/// One arrival a warp, after all its lanes have got here.
__device__ __forceinline__ void arrive_warp(uint64_t& barrier, int32_t lane) {
  __syncwarp();
  if (lane == 0) ptx::mbarrier_arrive(barrier);
}

/// The query token of a request's row (row < 2^16, h_q <= 128: exact).
__device__ __forceinline__ int32_t token_of(DenseDecodeParams const& params, int32_t row) {
  return params.h_q == 1 ? row : static_cast<int32_t>(__umulhi(static_cast<uint32_t>(row), params.h_q_inverse));
}

/// Elements of row `row` of a request in one of q's tensors.
__device__ __forceinline__ int64_t row_offset(DenseDecodeParams const& params, core::RowStrides const& stride, int32_t request, int32_t row) {
  int32_t const token = token_of(params, row), head = row - token * params.h_q;
  return request * stride.batch + token * stride.token + head * stride.head;
}

/// Q's latent columns where no tensor map describes them (rows unevenly spaced or unaligned); rows past the last are zeros.
__device__ __forceinline__ void load_q_latent(Shared& s, DenseDecodeParams const& params, Part const& part) {
  auto const* const q = static_cast<uint16_t const*>(params.call.q_nope);
  int32_t const rows = params.call.q_tokens * params.h_q - part.row_begin;
#pragma unroll 1
  for (int32_t row = threadIdx.x / 64; row < kCtaRows; row += kConsumerThreads / 64) {
    int32_t const chunk = threadIdx.x % 64;  // 16-byte column
    uint32_t const target = ptx::shared_address(s.q[chunk / 8]) + swizzled_offset(row, chunk % 8);
    uint16_t const* const source = q + row_offset(params, params.call.q_nope_stride, part.request, part.row_begin + (row < rows ? row : 0)) + chunk * 8;
    if (params.q_is_aligned) {
      ptx::cp_async_16(target, source, row < rows ? 16 : 0);
    } else {
      for (int e = 0; e < 8; ++e) ptx::store_shared_2(target + e * 2, row < rows ? source[e] : 0);
    }
  }
  ptx::cp_async_wait_all();
  ptx::fence_proxy_async_shared();
  ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);
}

/// Q's RoPE columns as the A fragments of four k-steps. All loads are issued before the first is used.
__device__ __forceinline__ void load_q_rope(uint32_t (&rope)[4][4], DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t const rows = params.call.q_tokens * params.h_q - part.row_begin;
  uint16_t const* source[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const row = fragment_row(thread, half);
    source[half] = static_cast<uint16_t const*>(params.call.q_pe) + fragment_column(thread, 0) +
                   row_offset(params, params.call.q_pe_stride, part.request, part.row_begin + (row < rows ? row : 0));
  }
  if (params.q_is_aligned) {
#pragma unroll
    for (int i = 0; i < 16; ++i) rope[i / 4][i % 4] = __ldg(reinterpret_cast<uint32_t const*>(source[i % 2] + (i / 2) * 8));
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i) rope[i / 4][i % 4] = source[i % 2][(i / 2) * 8] | static_cast<uint32_t>(source[i % 2][(i / 2) * 8 + 1]) << 16;
  }
#pragma unroll
  for (int i = 0; i < 16; ++i)
    if (fragment_row(thread, i % 2) >= rows) rope[i / 4][i % 4] = 0;
}

/// Where the operands of S = Q K^T lie: the half that load_tile fills first, then the other.
struct QkOperands {
  uint32_t first_copy[2];
  uint64_t q[2], k[2], k_rope;
};

__device__ __forceinline__ QkOperands qk_operands(Shared& s, uint32_t stage, int32_t owner) {
  uint32_t const first = owner == 0 ? 4 : 0, last = 4 - first;  // boxes
  uint64_t const q = k_major_descriptor(ptx::shared_address(s.q)), k = k_major_descriptor(ptx::shared_address(s.kv[stage]));
  return {{first / kCopyBoxes, last / kCopyBoxes},
          {advance(q, first * kBoxBytes), advance(q, last * kBoxBytes)},
          {advance(k, first * kBoxBytes), advance(k, last * kBoxBytes)},
          advance(k, kLatentBoxes * kBoxBytes)};
}

/// Copy kCopy (0 or 1) of a half, as soon as it has landed.
template <class Element, int kHalf, int kCopy>
__device__ __forceinline__ void multiply_qk(float (&scores)[32], QkOperands const& operands, uint64_t (&full)[kCopies], uint32_t parity) {
  ptx::mbarrier_wait(full[operands.first_copy[kHalf] + kCopy], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4 * kCopyBoxes; ++i) {
    uint32_t const offset = (kCopy * kCopyBoxes + i / 4) * kBoxBytes + i % 4 * kKMajorStepBytes;
    ptx::wgmma_m64n64k16_ss<Element>(scores, advance(operands.q[kHalf], offset), advance(operands.k[kHalf], offset), kHalf > 0 || kCopy > 0 || i > 0);
  }
}

template <class Element>
__device__ __forceinline__ void multiply_qk_rope(float (&scores)[32], QkOperands const& operands, uint32_t (&rope)[4][4], uint64_t (&full)[kCopies],
                                                 uint32_t parity) {
  ptx::mbarrier_wait(full[kRopeCopy], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) ptx::wgmma_m64n64k16_rs<Element>(scores, rope[step], advance(operands.k_rope, step * kKMajorStepBytes), true);
}

/// Multiplies O and l by 2^(m - new m) where some row of the warp needs it.
__device__ __forceinline__ void rescale(RowState& row, float const (&new_max)[2]) {
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    factor[half] = new_max[half] == row.max[half] ? 1.0F : ptx::exp2_approx(row.max[half] - new_max[half]);
    row.max[half] = new_max[half];
  }
  if (!__any_sync(0xffffffffU, factor[0] != 1.0F || factor[1] != 1.0F)) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    row.sum[half] *= factor[half];
#pragma unroll
    for (int block = 0; block < 32; ++block) {
      row.o[accumulator_index(block, half, 0)] *= factor[half];
      row.o[accumulator_index(block, half, 1)] *= factor[half];
    }
  }
}

/// V rows past the end, or of a page that does not exist, may hold NaN; 0 * NaN poisons O, so they become zeros.
__device__ __forceinline__ void zero_tail(Shared& s, uint32_t stage, int32_t valid, Consumer const& me) {
  for (int32_t row = me.thread / 8; row < kTileTokens; row += kWarpgroupThreads / 8) {
    if (row < valid) continue;
#pragma unroll
    for (int box = 0; box < kLatentBoxes; ++box)
      ptx::store_shared_16(ptx::shared_address(s.kv[stage][box]) + row * kSwizzleRowBytes + (me.thread % 8) * 16, 0, 0, 0, 0);
  }
  ptx::fence_proxy_async_shared();
  ptx::named_barrier_sync(kWarpgroupBarrier + me.warpgroup, kWarpgroupThreads);
}

/// Scores outside a row's view become -inf.
__device__ __forceinline__ void mask_scores(float (&scores)[32], int32_t const (&limit)[2], int32_t thread) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    int const half = (i / 2) % 2, column = fragment_column(thread, i / 4) + i % 2;
    if (column >= limit[half]) scores[i] = -INFINITY;
  }
}

/// m after this tile: m before, unless the tile exceeds it by more than the lazy margin.
__device__ __forceinline__ float next_maximum(float const (&scores)[32], int half, float max_before, float scale_log2) {
  float tile_max = -INFINITY;
#pragma unroll
  for (int block = 0; block < 8; ++block)
    tile_max = fmaxf(tile_max, fmaxf(scores[accumulator_index(block, half, 0)], scores[accumulator_index(block, half, 1)]));
  tile_max = fmaxf(tile_max, __shfl_xor_sync(0xffffffffU, tile_max, 1));
  tile_max = fmaxf(tile_max, __shfl_xor_sync(0xffffffffU, tile_max, 2)) * scale_log2;
  return tile_max > max_before + kLazyMaximum ? tile_max : max_before;
}

template <class Element>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<uint32_t const&>(pair);
  } else {
    __half2 const pair = __floats2half2_rn(low, high);
    return reinterpret_cast<uint32_t const&>(pair);
  }
}

/// P = 2^(c S - m), packed as A fragments; returns the new maxima and this thread's sums.
template <class Element>
__device__ __forceinline__ void softmax(float (&scores)[32], uint32_t (&p)[4][4], float (&new_max)[2], float (&sum)[2], float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    new_max[half] = next_maximum(scores, half, new_max[half], scale_log2);
    float const reference = new_max[half] == -INFINITY ? 0.0F : new_max[half];
    sum[half] = 0.0F;
#pragma unroll
    for (int block = 0; block < 8; ++block) {
      float const low = ptx::exp2_approx(fmaf(scores[accumulator_index(block, half, 0)], scale_log2, -reference));
      float const high = ptx::exp2_approx(fmaf(scores[accumulator_index(block, half, 1)], scale_log2, -reference));
      sum[half] += low + high;
      p[block / 2][half + 2 * (block % 2)] = pack<Element>(low, high);
    }
  }
}

/// Gives P and m to the other warpgroup.
__device__ __forceinline__ void publish(Shared& s, uint32_t (&p)[4][4], float const (&new_max)[2], Consumer& me) {
  uint32_t const index = me.published[me.warpgroup];
  if (index > 0) ptx::mbarrier_wait(s.p_free[me.warpgroup], (index - 1) & 1);
  uint32_t const tile = ptx::shared_address(s.p[me.warpgroup]);
  uint32_t const row = (me.thread / 32) * 16 + (me.lane / 8 % 2) * 8 + me.lane % 8;
#pragma unroll
  for (int step = 0; step < 4; ++step) ptx::stmatrix_x4(tile + swizzled_offset(row, 2 * step + me.lane / 16), p[step]);
  if (me.lane % 4 == 0) {
    s.row_max[me.warpgroup][fragment_row(me.thread, 0)] = new_max[0];
    s.row_max[me.warpgroup][fragment_row(me.thread, 1)] = new_max[1];
  }
  ptx::fence_proxy_async_shared();
  arrive_warp(s.p_ready[me.warpgroup], me.lane);
  ++me.published[me.warpgroup];
}

__device__ __forceinline__ uint64_t value_descriptor(Shared& s, uint32_t stage, int32_t warpgroup) {
  return n_major_descriptor(ptx::shared_address(s.kv[stage][warpgroup * 4]), kBoxBytes);
}

/// Starts O += P V with the other warpgroup's P, once that is there.
template <class Element>
__device__ __forceinline__ void begin_other_pv(RowState& row, Shared& s, uint32_t stage, Consumer& me) {
  int const other = 1 - me.warpgroup;
  ptx::mbarrier_wait(s.p_ready[other], me.published[other] & 1);
  ++me.published[other];
  float const max[2] = {s.row_max[other][fragment_row(me.thread, 0)], s.row_max[other][fragment_row(me.thread, 1)]};
  rescale(row, max);
  uint64_t const p = k_major_descriptor(ptx::shared_address(s.p[other]));
  uint64_t const v = value_descriptor(s, stage, me.warpgroup);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ptx::wgmma_m64n256k16_ss<Element>(row.o, advance(p, step * kKMajorStepBytes), advance(v, step * kNMajorStepBytes), true);
  ptx::wgmma_commit();
}

/// After that product: lets go of the other's P and of this half of the stage.
__device__ __forceinline__ void end_other_pv(Shared& s, uint32_t stage, Consumer const& me) {
  arrive_warp(s.empty[stage][me.warpgroup], me.lane);
  arrive_warp(s.p_free[1 - me.warpgroup], me.lane);
}

template <class Element>
__device__ __forceinline__ void own_pv(RowState& row, Shared& s, uint32_t (&p)[4][4], uint32_t stage, Consumer const& me) {
  uint64_t const v = value_descriptor(s, stage, me.warpgroup);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) ptx::wgmma_m64n256k16_rs<Element>(row.o, p[step], advance(v, step * kNMajorStepBytes), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin_registers(row.o);
  arrive_warp(s.empty[stage][me.warpgroup], me.lane);
}

// A pair is an item of two parts, which two CTAs merge between themselves: the first to claim it leaves its registers in
// its slot, in the order of threads; the second takes them up and finishes the item, so that no kernel has to follow. The
// first is running when the second waits for it, so the wait ends whatever else the GPU does. The result is the same bits
// whoever is second: part 0 is always the first operand. The counter holds 1 after the first claim, + 1 after the second,
// + 4 once the first half is in memory; the second leaves 0 for the next run.

__device__ __forceinline__ uint32_t& pair_counter(DenseDecodeParams const& params, Part const& part) {
  uint32_t const first_worker = blockIdx.y - part.split;
  return static_cast<core::WorkspaceHeader*>(params.workspace)->counters[first_worker * params.group + blockIdx.x];
}

/// A tile before the part ends, so that the answer is there in time. Not earlier: a second part waits for the first one.
__device__ __forceinline__ void claim_pair(DenseDecodeParams const& params, Part const& part, Consumer& me) {
  if (part.is_pair && threadIdx.x == 0) me.claim = atomicAdd(&pair_counter(params, part), 1U);
}

/// All tiles of a part: own ones in full, the other's as PV only. `count` is the part's first tile among all of this CTA.
template <class Element>
__device__ __forceinline__ void attend(RowState& row, Shared& s, DenseDecodeParams const& params, Part const& part, uint32_t (&rope)[4][4],
                                       uint32_t count, Consumer& me) {
  if (me.warpgroup >= part.num_tiles) arrive_warp(s.q_free, me.lane);  // no tile of its own
  for (int32_t i = me.warpgroup; i < part.num_tiles; i += 2) {
    uint32_t const stage = uniform((count + i) % kStages), parity = uniform((count + i) / kStages % 2);
    if (i + 2 >= part.num_tiles) claim_pair(params, part, me);
    QkOperands const operands = qk_operands(s, stage, me.warpgroup);
    // The other's tile first: its stage is then on its way back to the producer while this one's K may still be landing.
    // If K is there already, two boxes of it keep the tensor cores busy behind that product.
    bool const has_other = i > 0;
    if (has_other) begin_other_pv<Element>(row, s, stage ^ 1, me);
    bool const has_landed = ptx::mbarrier_test(s.full[stage][operands.first_copy[0]], parity);
    if (has_other && !has_landed) {
      ptx::wgmma_wait<0>();
      end_other_pv(s, stage ^ 1, me);
    }
    float scores[32];
    multiply_qk<Element, 0, 0>(scores, operands, s.full[stage], parity);
    ptx::wgmma_commit();
    if (has_other && has_landed) {
      ptx::wgmma_wait<1>();
      end_other_pv(s, stage ^ 1, me);
    }
    multiply_qk<Element, 0, 1>(scores, operands, s.full[stage], parity);
    multiply_qk_rope<Element>(scores, operands, rope, s.full[stage], parity);
    multiply_qk<Element, 1, 0>(scores, operands, s.full[stage], parity);
    multiply_qk<Element, 1, 1>(scores, operands, s.full[stage], parity);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::pin_registers(scores);
    ptx::pin_registers(row.o);
    if (i + 2 >= part.num_tiles) arrive_warp(s.q_free, me.lane);
    arrive_warp(s.empty[stage][kRope], me.lane);
    int32_t const valid = s.valid[stage];
    if (valid < kTileTokens) zero_tail(s, stage, valid, me);
    int32_t const base = (part.first_tile + i) * kTileTokens;
    int32_t const limit[2] = {min(row.visible[0] - base, valid), min(row.visible[1] - base, valid)};
    if (limit[0] < kTileTokens || limit[1] < kTileTokens) mask_scores(scores, limit, me.thread);
    uint32_t p[4][4];
    float new_max[2] = {row.max[0], row.max[1]}, sum[2];
    softmax<Element>(scores, p, new_max, sum, params.scale_log2);
    publish(s, p, new_max, me);
    rescale(row, new_max);
    row.sum[0] += sum[0], row.sum[1] += sum[1];
    own_pv<Element>(row, s, p, stage, me);
  }
  if (part.num_tiles > 0 && (part.num_tiles - 1) % 2 != me.warpgroup) {
    uint32_t const stage = uniform((count + part.num_tiles - 1) % kStages);
    begin_other_pv<Element>(row, s, stage, me);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(row.o);
    end_other_pv(s, stage, me);
  }
}

// ------------------------------------------------------------------------------------------------ epilogue --

/// A row's columns as pairs of a 16-bit type. Plain 4-byte stores: a quad fills 16 bytes, two of them a sector of L2, and
/// the code is as short as can be, which matters more (it runs once a part, from cold instruction caches).
template <class Element>
__device__ __forceinline__ void store_row_16bit(Element* target, RowState const& row, int half, int32_t lane, bool is_aligned) {
  Element* const first = target + 2 * (lane % 4);
  if (is_aligned) {
#pragma unroll
    for (int block = 0; block < 32; ++block)
      *reinterpret_cast<uint32_t*>(first + block * 8) = pack<Element>(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
  } else {
#pragma unroll
    for (int block = 0; block < 32; ++block) {
      uint32_t const pair = pack<Element>(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
      auto* const cells = reinterpret_cast<uint16_t*>(first + block * 8);
      cells[0] = static_cast<uint16_t>(pair), cells[1] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

__device__ __forceinline__ void store_row_fp32(float* target, RowState const& row, int half, int32_t lane, bool is_aligned) {
  float* const first = target + 2 * (lane % 4);
#pragma unroll
  for (int block = 0; block < 32; ++block) {
    float2 const value = make_float2(row.o[accumulator_index(block, half, 0)], row.o[accumulator_index(block, half, 1)]);
    if (is_aligned) *reinterpret_cast<float2*>(first + block * 8) = value;
    else first[block * 8] = value.x, first[block * 8 + 1] = value.y;
  }
}

/// A row into out at `offset` elements, in out's own type.
__device__ __forceinline__ void store_row(DenseDecodeParams const& params, int64_t offset, RowState const& row, int half, int32_t lane) {
  bool const is_aligned = params.out_is_aligned != 0;
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_FP32) store_row_fp32(static_cast<float*>(out) + offset, row, half, lane, is_aligned);
  else if (params.out_dtype == FLASHMLA_BF16) store_row_16bit(static_cast<__nv_bfloat16*>(out) + offset, row, half, lane, is_aligned);
  else store_row_16bit(static_cast<__half*>(out) + offset, row, half, lane, is_aligned);
}

/// What the sink leaves of a row's output: 2^lse / (2^lse + 2^sink).
__device__ __forceinline__ float sink_factor(DenseDecodeParams const& params, int32_t row, float lse_log2) {
  if (params.call.sink == nullptr || row >= params.call.q_tokens * params.h_q) return 1.0F;
  int32_t const head = row - token_of(params, row) * params.h_q;
  return 1.0F / (1.0F + exp2f(params.call.sink[head] * 1.4426950408889634F - lse_log2));
}

/// What a thread knows of its two rows at the end of a part.
struct RowResult {
  float lse_log2[2];  // -inf: the row saw no key
};

/// O / l in place, from both warpgroups' shares of l; times the sink's factor where no other part follows.
__device__ __forceinline__ RowResult normalise(RowState& row, float const (&row_sum)[2][kCtaRows], DenseDecodeParams const& params, Part const& part,
                                               int32_t thread) {
  RowResult result;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const local = fragment_row(thread, half);
    float const sum = row_sum[0][local] + row_sum[1][local];
    bool const is_empty = !(sum > 0.0F);
    result.lse_log2[half] = is_empty ? -INFINITY : row.max[half] + log2f(sum);
    float factor = is_empty ? 0.0F : __fdividef(1.0F, sum);
    if (part.is_whole && !is_empty) factor *= sink_factor(params, part.row_begin + local, result.lse_log2[half]);
#pragma unroll
    for (int block = 0; block < 32; ++block) {
      row.o[accumulator_index(block, half, 0)] *= factor;
      row.o[accumulator_index(block, half, 1)] *= factor;
    }
  }
  return result;
}

/// Whether any of the warp's 16 rows exists; the others have nothing to write.
__device__ __forceinline__ bool warp_has_rows(DenseDecodeParams const& params, Part const& part, Consumer const& me) {
  return part.row_begin + fragment_row(me.thread & ~31, 0) < params.call.q_tokens * params.h_q;
}

/// First cell (row 0 of this CTA) of a slot of partial results.
__device__ __forceinline__ int64_t slot_cell(DenseDecodeParams const& params, int32_t worker, int32_t split) {
  return (static_cast<int64_t>(core::partial_slot(worker, split)) * params.group + blockIdx.x) * kCtaRows;
}

/// One of three or more parts: rows for merge_splits.
__device__ __forceinline__ void write_partial(RowState const& row, RowResult const& result, DenseDecodeParams const& params, Part const& part, Consumer const& me) {
  int64_t const first = slot_cell(params, blockIdx.y, part.split);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const local = fragment_row(me.thread, half);
    bool const exists = part.row_begin + local < params.call.q_tokens * params.h_q;
    if (exists && me.warpgroup == 0 && me.lane % 4 == 0) params.partial_lse[first + local] = result.lse_log2[half];
    if (exists) store_row_fp32(params.partial_out + (first + local) * kLatent + me.warpgroup * 256, row, half, me.lane, true);
  }
}

/// This thread's registers of a pair's half: [32][256 threads], behind its CTA's first cell.
__device__ __forceinline__ float4* pair_values(DenseDecodeParams const& params, int64_t cell) {
  return reinterpret_cast<float4*>(params.partial_out + cell * kLatent) + threadIdx.x;
}

__device__ __forceinline__ void write_first_half(RowState const& row, RowResult const& result, Shared& s, DenseDecodeParams const& params, Part const& part,
                                                 Consumer& me) {
  int64_t const cell = slot_cell(params, blockIdx.y, part.split);
  if (warp_has_rows(params, part, me)) {
    float4* const values = pair_values(params, cell);
#pragma unroll
    for (int i = 0; i < 32; ++i) __stcg(values + i * kConsumerThreads, make_float4(row.o[4 * i], row.o[4 * i + 1], row.o[4 * i + 2], row.o[4 * i + 3]));
    if (me.warpgroup == 0 && me.lane % 4 == 0)
      __stcg(params.partial_lse + cell + fragment_row(me.thread, 0), result.lse_log2[0]), __stcg(params.partial_lse + cell + fragment_row(me.thread, 1), result.lse_log2[1]);
  }
  if (threadIdx.x == 0) s.publish[me.events] = &pair_counter(params, part);
  arrive_warp(s.published[me.events++], me.lane);
}

/// Warp 9 + event: makes the first half visible to the GPU, then says so.
__device__ __forceinline__ void publish_half(Shared& s, int32_t event) {
  ptx::mbarrier_wait(s.published[event], 0);
  if (threadIdx.x % 32 != 0 || s.publish[event] == nullptr) return;
  __threadfence();
  atomicAdd(s.publish[event], 4U);
}

/// Waits for the first half and adds it to this one.
__device__ __forceinline__ void add_first_half(RowState& row, RowResult& result, DenseDecodeParams const& params, Part const& part, Consumer const& me) {
  if (threadIdx.x == 0) {
    uint32_t& counter = pair_counter(params, part);
    while ((ptx::load_acquire(&counter) & 4U) == 0U) {
    }
    counter = 0;
  }
  ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);
  if (!warp_has_rows(params, part, me)) return;
  int64_t const cell = slot_cell(params, blockIdx.y + 1 - 2 * part.split, 1 - part.split);
  float weight[2], other[2];  // of this half and the one in memory
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const lse_other = __ldcg(params.partial_lse + cell + fragment_row(me.thread, half)), lse = result.lse_log2[half], max = fmaxf(lse, lse_other);
    weight[half] = lse == -INFINITY ? 0.0F : exp2f(lse - max);
    other[half] = lse_other == -INFINITY ? 0.0F : exp2f(lse_other - max);
    float const sum = weight[half] + other[half], inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
    result.lse_log2[half] = sum > 0.0F ? max + log2f(sum) : -INFINITY;
    float const factor = sum > 0.0F ? inverse * sink_factor(params, part.row_begin + fragment_row(me.thread, half), result.lse_log2[half]) : 0.0F;
    weight[half] *= factor, other[half] *= factor;
  }
  bool const is_part_0 = part.split == 0;
  float4 const* const values = pair_values(params, cell);
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    float4 const value = __ldcg(values + i * kConsumerThreads);
    float const theirs[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float const mine = weight[e / 2] * row.o[4 * i + e], sum = other[e / 2] * theirs[e];
      row.o[4 * i + e] = is_part_0 ? fmaf(other[e / 2], theirs[e], mine) : fmaf(weight[e / 2], row.o[4 * i + e], sum);
    }
  }
}

/// A finished row to out and lse.
__device__ __forceinline__ void write_row(RowState const& row, RowResult const& result, int half, DenseDecodeParams const& params, Part const& part,
                                          Consumer const& me) {
  int32_t const index = part.row_begin + fragment_row(me.thread, half);
  if (index >= params.call.q_tokens * params.h_q) return;
  int32_t const token = token_of(params, index), head = index - token * params.h_q;
  core::RowStrides const &stride = params.call.out_stride, &lse = params.call.lse_stride;
  store_row(params, part.request * stride.batch + token * stride.token + head * stride.head + me.warpgroup * 256, row, half, me.lane);
  if (me.warpgroup == 0 && me.lane % 4 == 0 && params.call.lse != nullptr)
    params.call.lse[part.request * lse.batch + token * lse.token + head * lse.head] =
        result.lse_log2[half] == -INFINITY ? params.empty_lse : result.lse_log2[half] * params.lse_factor;
}

__device__ __forceinline__ void write_part(RowState& row, Shared& s, DenseDecodeParams const& params, Part const& part, uint32_t part_index, Consumer& me) {
  RowResult result = normalise(row, s.row_sum[part_index % 2], params, part, me.thread);
  if (part.is_pair) {
    if ((s.arrival[part_index % 2] & 3U) == 0U) return write_first_half(row, result, s, params, part, me);
    add_first_half(row, result, params, part, me);
  }
  if (!warp_has_rows(params, part, me)) return;
  if (part.is_whole || part.is_pair) {
    write_row(row, result, 0, params, part, me);
    write_row(row, result, 1, params, part, me);
  } else {
    write_partial(row, result, params, part, me);
  }
}

/// Keys that the thread's rows see; a visible_len outside [0, kv_len] is clamped and recorded.
__device__ __forceinline__ void read_visible(RowState& row, DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t const* const view = params.call.visible_len == nullptr ? nullptr : params.call.visible_len + static_cast<int64_t>(part.request) * params.call.q_tokens;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const index = part.row_begin + fragment_row(thread, half), token = token_of(params, index);
    row.visible[half] = part.kv_len;
    if (token >= params.call.q_tokens) continue;
    row.visible[half] = core::num_visible(part.kv_len, params.call.q_tokens, token, params.causal != 0, view);
    if (view != nullptr && view[token] != row.visible[half])
      record_fault(params.workspace, FLASHMLA_FAULT_VISIBLE_LEN, part.request, token, view[token]);
  }
}

template <class Element>
__device__ __forceinline__ void consume(Shared& s, DenseDecodeParams const& params, CtaWalk walk, int32_t warpgroup) {
  Consumer me{warpgroup, static_cast<int32_t>(threadIdx.x % kWarpgroupThreads),
              static_cast<int32_t>(threadIdx.x % 32), {0, 0}, 0, 0};
  uint32_t count = 0;
  uint32_t rope[4][4];
  Part part;
  bool has_part = walk.next(part);
  if (has_part) load_q_rope(rope, params, part, me.thread);
  for (uint32_t part_index = 0; has_part; ++part_index) {
    RowState row;
#pragma unroll
    for (int i = 0; i < 128; ++i) row.o[i] = 0.0F;
    row.max[0] = row.max[1] = -INFINITY;
    row.sum[0] = row.sum[1] = 0.0F;
    if (part.num_tiles == 0) claim_pair(params, part, me);
    read_visible(row, params, part, me.thread);
    if (params.q_is_tensor) ptx::mbarrier_wait(s.q_full, part_index & 1);
    else load_q_latent(s, params, part);
    attend<Element>(row, s, params, part, rope, count, me);
    count += part.num_tiles;
    float(&shares)[kCtaRows] = s.row_sum[part_index % 2][me.warpgroup];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 1);
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 2);
      if (me.lane % 4 == 0) shares[fragment_row(me.thread, half)] = row.sum[half];
    }
    if (threadIdx.x == 0) s.arrival[part_index % 2] = me.claim;
    ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);  // both shares of l are there, and no QK needs Q any more
    Part const done = part;
    has_part = walk.next(part);
    if (has_part) load_q_rope(rope, params, part, me.thread);  // on its way while the rows of this part are written
    write_part(row, s, params, done, part_index, me);
  }
  for (; me.events < 2; ++me.events) {
    if (threadIdx.x == 0) s.publish[me.events] = nullptr;
    arrive_warp(s.published[me.events], me.lane);
  }
}

// -------------------------------------------------------------------------------------------------- kernel --

/// A lane a barrier.
__device__ __forceinline__ void initialise_barriers(Shared& s, int32_t lane) {
  if (lane < kStages * kCopies) ptx::mbarrier_init(s.full[lane / kCopies][lane % kCopies], 1);
  if (lane < kStages * 3) ptx::mbarrier_init(s.empty[lane / 3][lane % 3], 4);
  if (lane < 2) {
    ptx::mbarrier_init(s.p_ready[lane], 4);
    ptx::mbarrier_init(s.p_free[lane], 4);
    ptx::mbarrier_init(s.published[lane], 8);
  }
  if (lane == 0) ptx::mbarrier_init(s.q_full, 1), ptx::mbarrier_init(s.q_free, 8);
  ptx::fence_mbarrier_init();
}

/// The last warp, which has no role, touches what the others will: a stream of KV has pushed the address translations of
/// everything else out, and one miss after the other would cost each role more than its loads. The request is a guess.
__device__ __forceinline__ void warm_translations(DenseDecodeParams const& params, int32_t lane) {
  core::DecodeCall const& call = params.call;
  int64_t const request = static_cast<int64_t>(blockIdx.y) * call.batch / params.max_workers;
  if (lane == 0) ptx::prefetch_l2(call.kv_len + request);
  if (lane == 1) ptx::prefetch_l2(call.page_table + request * call.page_table_stride);
  if (lane == 2) ptx::prefetch_l2(static_cast<uint16_t const*>(call.q_nope) + request * call.q_nope_stride.batch);
  if (lane == 3) ptx::prefetch_l2(static_cast<uint16_t const*>(call.q_pe) + request * call.q_pe_stride.batch);
  if (lane == 4) ptx::prefetch_l2(static_cast<uint16_t const*>(call.out) + request * call.out_stride.batch * (params.out_dtype == FLASHMLA_FP32 ? 2 : 1));
  if (lane == 5 && call.lse != nullptr) ptx::prefetch_l2(call.lse + request * call.lse_stride.batch);
  if (lane == 6) ptx::prefetch_l2(params.workspace);
  if (lane == 7) ptx::prefetch_l2(params.partial_out + (static_cast<int64_t>(2 * blockIdx.y) * params.group + blockIdx.x) * kCtaRows * kLatent);
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 1) dense_decode_kernel(TensorMaps const __grid_constant__ maps,
                                                                      DenseDecodeParams const __grid_constant__ params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x < 32) initialise_barriers(s, threadIdx.x);
  if (threadIdx.x == kConsumerThreads) ptx::prefetch_tensor_map(&maps.latent), ptx::prefetch_tensor_map(&maps.rope), ptx::prefetch_tensor_map(&maps.q);
  __syncthreads();
  ptx::grid_dependency_wait();  // schedule, lengths, tables, q and cache may be the work of the grids before
  ptx::grid_launch_dependents();
  if (threadIdx.x >= kThreads - 32) warm_translations(params, threadIdx.x % 32);
  auto const* const schedule = static_cast<char const*>(params.schedule);
  auto const* const begins = reinterpret_cast<core::WorkerBegin const*>(schedule + core::kScheduleBeginsOffset);
  int32_t const worker = blockIdx.y;
  core::ScheduleHeader const header = *reinterpret_cast<core::ScheduleHeader const*>(schedule);
  core::WorkerBegin const mine[3] = {begins[worker], begins[worker + 1], begins[min(worker + 2, params.max_workers)]};
  bool const fits = header.magic == core::kScheduleMagic && header.batch == params.call.batch && header.q_tokens == params.call.q_tokens &&
                    header.num_row_tiles == params.num_row_tiles && header.tile_rows == params.group * kCtaRows && header.tile_tokens == kTileTokens;
  if (!fits) {
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) record_fault(params.workspace, FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, header.batch);
    return;
  }
  CtaWalk const walk(params, mine, header.num_row_tiles);
  // Through a shuffle, so that the compiler knows it to be uniform: wgmma must not stand in divergent code.
  int32_t const warpgroup = __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x / kWarpgroupThreads), 0);
  if (warpgroup == 2) {
    ptx::register_decrease<kProducerRegisters>();
    int32_t const warp = uniform(threadIdx.x / 32) - kConsumerThreads / 32;
    if (warp == 0) produce(s, maps, params, walk);
    else if (warp < 3) publish_half(s, warp - 1);
  } else {
    ptx::register_increase<kConsumerRegisters>();
    consume<Element>(s, params, walk, warpgroup);
  }
}

}  // namespace flashmla::cuda::dense_decode
