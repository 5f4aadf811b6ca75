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
//   every P. Warp 8 (producer) walks the same parts and keeps two tiles of KV in flight with TMA. Warps 9-11 idle.
//
// Timeline (own tiles of the left warpgroup are even; `|` is a wait for the other):
//   left : QK(0) softmax(0) PV(0)l          | QK(2)  PV(1)l+softmax(2) PV(2)l          | ...
//   right: QK(1) | PV(0)r+softmax(1) PV(1)r | QK(3)  PV(2)r+softmax(3) ...
//   producer: tile t + 2 goes out region by region as tile t's left half, right half and RoPE are let go.
//
// Shared memory (bytes; everything 1,024-aligned, rows of 128 bytes swizzled):
//   q    8 x 8,192   =  65,536   latent columns of Q; its RoPE columns live in registers as A fragments
//   kv   2 x 9 x 8,192 = 147,456 two stages of 64 tokens x 576: boxes of 64 columns, the ninth is RoPE
//   p    2 x 8,192   =  16,384   P of each warpgroup's current tile
//   rest              =   1,256  row maxima and sums, valid tokens, barriers
//   total 230,632, padded to 231,424 of 232,448
//
// Barriers (phase = use count of the stage or of the publication, parity):
//   full[stage][box]       producer's expect_tx -> owner of the tile: the box has landed (8,192 bytes)
//   empty[stage][region]   4 warps -> producer: left (PV left done), right (PV right done), rope (QK done). P is published
//                          after its QK, so a finished PV half implies that QK has let go of that half as well.
//   p_ready[warpgroup]     4 warps -> the other warpgroup: P, m and zeroed tails of the tile are in shared memory
//   p_free[warpgroup]      4 warps of the other -> owner: its P has been consumed
//
// Registers. 384 threads start with 168; consumers take 240, the producer 24. O 128, S 32, P 16, RoPE of Q 16.
//
// Limits. Pages of 64 tokens, h_kv 1, cache fused in one tensor, base and page stride multiples of 16 bytes.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

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
inline constexpr int kStages = 2;
inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kConsumerThreads = 2 * kWarpgroupThreads;
inline constexpr int kThreads = kConsumerThreads + kWarpgroupThreads;
inline constexpr int kConsumerRegisters = 240;
inline constexpr int kProducerRegisters = 24;
inline constexpr float kLazyMaximum = 8.0F;  // log2 units; P stays below 2^8

struct Shared {
  alignas(1024) uint8_t q[kLatentBoxes][kBoxBytes];
  alignas(1024) uint8_t kv[kStages][kBoxes][kBoxBytes];
  alignas(1024) uint8_t p[2][kBoxBytes];
  float row_max[2][kCtaRows];  // [warpgroup]: m after its latest tile
  float row_sum[2][kCtaRows];  // [warpgroup]: its share of l
  int32_t valid[kStages];      // leading tokens of the tile that exist
  uint64_t full[kStages][kBoxes];
  uint64_t empty[kStages][3];
  uint64_t p_ready[2];
  uint64_t p_free[2];
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
  int32_t slot;        // of the partial result; -1: the part is the whole item
};

/// Walks the parts of a worker; every role walks the same ones.
class PartWalk {
 public:
  __device__ __forceinline__ PartWalk(DenseDecodeParams const& params, int32_t worker, int32_t sub_tile) : params_(params), worker_(worker), sub_tile_(sub_tile) {
    auto const* const base = static_cast<char const*>(params.schedule);
    num_row_tiles_ = reinterpret_cast<core::ScheduleHeader const*>(base)->num_row_tiles;
    auto const* const begins = reinterpret_cast<core::WorkerBegin const*>(base + core::kScheduleBeginsOffset);
    core::WorkerBegin const begin = begins[worker], end = begins[worker + 1];
    request_ = begin.request, row_tile_ = begin.row_tile, tile_ = begin.tile;
    end_request_ = end.request, end_row_tile_ = end.row_tile, end_tile_ = end.tile;
  }

  /// The next part that has rows for this CTA; false at the end.
  __device__ __forceinline__ bool next(Part& part) {
    while (true) {
      bool const is_last_item = request_ == end_request_ && row_tile_ == end_row_tile_;
      if (request_ >= params_.call.batch || (is_last_item && end_tile_ == tile_)) return false;
      bool const goes_on = is_last_item;  // in the next worker
      part.request = request_;
      part.row_begin = (row_tile_ * params_.group + sub_tile_) * kCtaRows;
      part.kv_len = clamped_length(request_);
      int32_t const tiles = (part.kv_len + kTileTokens - 1) / kTileTokens;
      part.first_tile = min(tile_, tiles);
      part.num_tiles = (goes_on ? min(end_tile_, tiles) : tiles) - part.first_tile;
      part.slot = tile_ > 0 ? core::partial_slot(worker_, 1) : (goes_on ? core::partial_slot(worker_, 0) : -1);
      advance(goes_on);
      if (part.row_begin < params_.call.q_tokens * params_.h_q) return true;
    }
  }

  __device__ __forceinline__ int32_t clamped_length(int32_t request) const {
    int64_t const capacity = params_.call.table_pages * kTileTokens;
    int64_t const length = params_.call.kv_len[request];
    return static_cast<int32_t>(length < 0 ? 0 : (length > capacity ? capacity : length));
  }

 private:
  __device__ __forceinline__ void advance(bool goes_on) {
    tile_ = 0;
    if (goes_on) {
      request_ = params_.call.batch;  // past every item: the walk ends
    } else if (++row_tile_ == num_row_tiles_) {
      row_tile_ = 0;
      ++request_;
    }
  }

  DenseDecodeParams const& params_;
  int32_t worker_, sub_tile_, num_row_tiles_;
  int32_t request_, row_tile_, tile_;
  int32_t end_request_, end_row_tile_, end_tile_;
};

/// Keeps the first fault of a run; later ones are dropped.
__device__ __forceinline__ void record_fault(void* workspace, int32_t code, int32_t request, int32_t position, int32_t value) {
  flashmla_fault& fault = static_cast<core::WorkspaceHeader*>(workspace)->fault;
  if (atomicCAS(&fault.code, FLASHMLA_FAULT_NONE, code) != FLASHMLA_FAULT_NONE) return;
  fault.request = request;
  fault.position = position;
  fault.value = value;
}

// ------------------------------------------------------------------------------------------------ producer --

/// One tile into its stage, region by region. The half that the tile's owner does not multiply is let go first, and the
/// owner reads the boxes in the same order.
__device__ __forceinline__ void load_tile(Shared& s, CUtensorMap const* map, uint32_t count, int32_t owner, int32_t page, int32_t valid) {
  uint32_t const stage = count % kStages, parity = (count / kStages) & 1;
#pragma unroll
  for (int step = 0; step < 3; ++step) {
    int const region = step == 1 ? kRope : ((step == 0) == (owner == 0) ? kRight : kLeft);
    int const first = region == kRope ? kLatentBoxes : region * 4;
    int const boxes = region == kRope ? 1 : 4;
    ptx::mbarrier_wait(s.empty[stage][region], parity ^ 1);
    if (step == 0) s.valid[stage] = valid;
    for (int box = first; box < first + boxes; ++box) {
      if (valid > 0) {
        ptx::mbarrier_arrive_expect_tx(s.full[stage][box], kBoxBytes);
        ptx::tma_load_3d(s.kv[stage][box], map, s.full[stage][box], box * 64, 0, page);
      } else {
        ptx::mbarrier_arrive(s.full[stage][box]);
      }
    }
  }
}

__device__ __forceinline__ void check_length(DenseDecodeParams const& params, Part const& part) {
  int32_t const length = params.call.kv_len[part.request];
  if (length == part.kv_len && (params.max_kv_len == 0 || length <= params.max_kv_len)) return;
  record_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, part.request, 0, length);
}

__device__ __forceinline__ void produce(Shared& s, CUtensorMap const* map, DenseDecodeParams const& params, PartWalk walk) {
  int const lane = threadIdx.x % 32;
  uint32_t count = 0;
  Part part;
  while (walk.next(part)) {
    if (lane == 0) check_length(params, part);
    int32_t const* const table = params.call.page_table + part.request * params.call.page_table_stride + part.first_tile;  // [num_tiles]
    auto const page_of = [&](int32_t tile) { return tile < part.num_tiles ? __ldg(table + tile) : 0; };
    int32_t pages = page_of(lane), next_pages = page_of(lane + 32);  // a window of 32 tiles, and the one after it
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
        load_tile(s, map, count, i % 2, page, exists ? min(left, kTileTokens) : 0);
      }
      __syncwarp();
    }
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
};

/// One arrival a warp, after all its lanes have got here.
__device__ __forceinline__ void arrive_warp(uint64_t& barrier, int32_t lane) {
  __syncwarp();
  if (lane == 0) ptx::mbarrier_arrive(barrier);
}

/// Elements of row `row` of a request in one of q's tensors.
__device__ __forceinline__ int64_t row_offset(core::RowStrides const& stride, int32_t request, int32_t row, int32_t h_q) {
  int32_t const token = row / h_q, head = row - token * h_q;
  return request * stride.batch + token * stride.token + head * stride.head;
}

/// Q's latent columns into shared memory; rows past the last are zeros.
template <class Element>
__device__ __forceinline__ void load_q_latent(Shared& s, DenseDecodeParams const& params, Part const& part) {
  auto const* const q = static_cast<Element const*>(params.call.q_nope);
  int32_t const rows = params.call.q_tokens * params.h_q - part.row_begin;
  int32_t const chunk = threadIdx.x % 64;  // 16-byte column
  uint32_t const box = ptx::shared_address(s.q[chunk / 8]);
#pragma unroll
  for (int i = 0; i < kCtaRows / 4; ++i) {
    int32_t const row = i * 4 + threadIdx.x / 64;
    uint32_t const target = box + swizzled_offset(row, chunk % 8);
    int32_t const source_row = part.row_begin + (row < rows ? row : 0);
    Element const* const source = q + row_offset(params.call.q_nope_stride, part.request, source_row, params.h_q) + chunk * 8;
    if (params.q_is_aligned) {
      ptx::cp_async_16(target, source, row < rows ? 16 : 0);
    } else {
      for (int e = 0; e < 8; ++e) ptx::store_shared_2(target + e * 2, row < rows ? reinterpret_cast<uint16_t const*>(source)[e] : 0);
    }
  }
  ptx::cp_async_wait_all();
  ptx::fence_proxy_async_shared();
}

/// Q's RoPE columns as the A fragments of four k-steps.
template <class Element>
__device__ __forceinline__ void load_q_rope(uint32_t (&rope)[4][4], DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t const rows = params.call.q_tokens * params.h_q - part.row_begin;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const row = fragment_row(thread, half);
    auto const* const source = reinterpret_cast<uint16_t const*>(static_cast<Element const*>(params.call.q_pe)) +
                               row_offset(params.call.q_pe_stride, part.request, part.row_begin + (row < rows ? row : 0), params.h_q);
#pragma unroll
    for (int block = 0; block < 8; ++block) {
      uint16_t const* const pair = source + fragment_column(thread, block);
      uint32_t const value = params.q_is_aligned ? *reinterpret_cast<uint32_t const*>(pair) : (pair[0] | static_cast<uint32_t>(pair[1]) << 16);
      rope[block / 2][half + 2 * (block % 2)] = row < rows ? value : 0;
    }
  }
}

/// S = Q K^T of a tile, box by box as they land.
template <class Element>
__device__ __forceinline__ void multiply_qk(float (&scores)[32], Shared& s, uint32_t (&rope)[4][4], uint32_t count, int32_t owner) {
  uint32_t const stage = count % kStages, parity = (count / kStages) & 1;
  uint64_t const q = k_major_descriptor(ptx::shared_address(s.q));
  uint64_t const k = k_major_descriptor(ptx::shared_address(s.kv[stage]));
  uint32_t const first = owner == 0 ? 4 : 0;  // the order in which load_tile fills them
#pragma unroll
  for (int i = 0; i < kBoxes; ++i) {
    uint32_t const box = i < 4 ? first + i : (i == 4 ? kLatentBoxes : (4 - first) + i - 5);
    ptx::mbarrier_wait(s.full[stage][box], parity);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t const offset = box * kBoxBytes + step * kKMajorStepBytes;
      if (i == 4) ptx::wgmma_m64n64k16_rs<Element>(scores, rope[step], advance(k, offset), true);
      else ptx::wgmma_m64n64k16_ss<Element>(scores, advance(q, offset), advance(k, offset), i > 0 || step > 0);
    }
  }
  ptx::wgmma_commit();
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
  int32_t const chunks = (kTileTokens - valid) * 8;
  for (int32_t i = me.thread; i < chunks * kLatentBoxes; i += kWarpgroupThreads) {
    uint32_t const address = ptx::shared_address(s.kv[stage][i / chunks]) + valid * kSwizzleRowBytes + (i % chunks) * 16;
    ptx::store_shared_16(address, 0, 0, 0, 0);
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

/// All tiles of a part: own ones in full, the other's as PV only. `count` is the part's first tile among all of this CTA.
template <class Element>
__device__ __forceinline__ void attend(RowState& row, Shared& s, DenseDecodeParams const& params, Part const& part, uint32_t (&rope)[4][4],
                                       uint32_t count, Consumer& me) {
  for (int32_t i = me.warpgroup; i < part.num_tiles; i += 2) {
    uint32_t const stage = (count + i) % kStages;
    float scores[32];
    multiply_qk<Element>(scores, s, rope, count + i, me.warpgroup);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(scores);
    arrive_warp(s.empty[stage][kRope], me.lane);
    int32_t const valid = s.valid[stage];
    if (valid < kTileTokens) zero_tail(s, stage, valid, me);
    int32_t const base = (part.first_tile + i) * kTileTokens;
    int32_t const limit[2] = {min(row.visible[0] - base, valid), min(row.visible[1] - base, valid)};
    if (limit[0] < kTileTokens || limit[1] < kTileTokens) mask_scores(scores, limit, me.thread);
    if (i > 0) begin_other_pv<Element>(row, s, stage ^ 1, me);
    uint32_t p[4][4];
    float new_max[2] = {row.max[0], row.max[1]}, sum[2];
    softmax<Element>(scores, p, new_max, sum, params.scale_log2);
    publish(s, p, new_max, me);
    // Outside the condition, though nothing is pending in tile 0: ptxas must see that O is never read in flight.
    ptx::wgmma_wait<0>();
    ptx::pin_registers(row.o);
    if (i > 0) end_other_pv(s, stage ^ 1, me);
    rescale(row, new_max);
    row.sum[0] += sum[0], row.sum[1] += sum[1];
    own_pv<Element>(row, s, p, stage, me);
  }
  if (part.num_tiles > 0 && (part.num_tiles - 1) % 2 != me.warpgroup) {
    uint32_t const stage = (count + part.num_tiles - 1) % kStages;
    begin_other_pv<Element>(row, s, stage, me);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(row.o);
    end_other_pv(s, stage, me);
  }
}

// ------------------------------------------------------------------------------------------------ epilogue --

/// Two neighbouring columns as 32 bits of a 16-bit type; lanes then trade, so that each stores 8 bytes and a quad 32.
template <class Element>
__device__ __forceinline__ void store_row_16bit(Element* target, RowState const& row, int half, float factor, int32_t lane, bool is_aligned) {
#pragma unroll
  for (int block = 0; block < 32; block += 2) {
    uint32_t const low = pack<Element>(row.o[accumulator_index(block, half, 0)] * factor, row.o[accumulator_index(block, half, 1)] * factor);
    uint32_t const high = pack<Element>(row.o[accumulator_index(block + 1, half, 0)] * factor, row.o[accumulator_index(block + 1, half, 1)] * factor);
    bool const is_odd = lane % 2 != 0;
    uint32_t const received = __shfl_xor_sync(0xffffffffU, is_odd ? low : high, 1);
    uint2 const value = is_odd ? make_uint2(received, high) : make_uint2(low, received);
    if (target == nullptr) continue;
    Element* const cell = target + (block + (is_odd ? 1 : 0)) * 8 + 2 * (lane % 4 & ~1);
    if (is_aligned) {
      *reinterpret_cast<uint2*>(cell) = value;
    } else {
      auto* const cells = reinterpret_cast<uint16_t*>(cell);
      cells[0] = value.x & 0xffff, cells[1] = value.x >> 16, cells[2] = value.y & 0xffff, cells[3] = value.y >> 16;
    }
  }
}

__device__ __forceinline__ void store_row_fp32(float* target, RowState const& row, int half, float factor, int32_t lane, bool is_aligned) {
  if (target == nullptr) return;
#pragma unroll
  for (int block = 0; block < 32; ++block) {
    float2 const value = make_float2(row.o[accumulator_index(block, half, 0)] * factor, row.o[accumulator_index(block, half, 1)] * factor);
    float* const cell = target + block * 8 + 2 * (lane % 4);
    if (is_aligned) *reinterpret_cast<float2*>(cell) = value;
    else cell[0] = value.x, cell[1] = value.y;
  }
}

/// A row into out at `offset` elements (-1: the row does not exist), in out's own type.
__device__ __forceinline__ void store_row(DenseDecodeParams const& params, int64_t offset, RowState const& row, int half, float factor, int32_t lane) {
  bool const exists = offset >= 0, is_aligned = params.out_is_aligned != 0;
  void* const out = params.call.out;
  if (params.out_dtype == FLASHMLA_FP32) store_row_fp32(exists ? static_cast<float*>(out) + offset : nullptr, row, half, factor, lane, is_aligned);
  else if (params.out_dtype == FLASHMLA_BF16)
    store_row_16bit(exists ? static_cast<__nv_bfloat16*>(out) + offset : nullptr, row, half, factor, lane, is_aligned);
  else store_row_16bit(exists ? static_cast<__half*>(out) + offset : nullptr, row, half, factor, lane, is_aligned);
}

/// What the sink leaves of a row's output.
__device__ __forceinline__ float sink_factor(float const* sink, int32_t head, float lse_log2) {
  if (sink == nullptr) return 1.0F;
  return 1.0F / (1.0F + exp2f(sink[head] * 1.4426950408889634F - lse_log2));
}

/// Normalises and writes one of the thread's rows: to out and lse, or to the worker's slot of partial results.
__device__ __forceinline__ void write_row(RowState const& row, int half, Shared& s, DenseDecodeParams const& params, Part const& part, Consumer const& me) {
  int32_t const local = fragment_row(me.thread, half), index = part.row_begin + local;
  bool const exists = index < params.call.q_tokens * params.h_q;
  float const sum = s.row_sum[0][local] + s.row_sum[1][local];
  bool const is_empty = !(sum > 0.0F);
  float const lse_log2 = is_empty ? -INFINITY : row.max[half] + log2f(sum);
  float factor = is_empty ? 0.0F : 1.0F / sum;
  bool const writes_lse = exists && me.warpgroup == 0 && me.lane % 4 == 0;
  if (part.slot >= 0) {
    int64_t const cell = static_cast<int64_t>(part.slot) * params.group * kCtaRows + index % (params.group * kCtaRows);
    if (writes_lse) params.partial_lse[cell] = lse_log2;
    store_row_fp32(exists ? params.partial_out + cell * kLatent + me.warpgroup * 256 : nullptr, row, half, factor, me.lane, true);
  } else {
    int32_t const token = index / params.h_q, head = index - token * params.h_q;
    if (exists && !is_empty) factor *= sink_factor(params.call.sink, head, lse_log2);
    core::RowStrides const& lse = params.call.lse_stride;
    if (writes_lse && params.call.lse != nullptr)
      params.call.lse[part.request * lse.batch + token * lse.token + head * lse.head] = is_empty ? params.empty_lse : lse_log2 * params.lse_factor;
    core::RowStrides const& stride = params.call.out_stride;
    int64_t const offset = part.request * stride.batch + token * stride.token + head * stride.head + me.warpgroup * 256;
    store_row(params, exists ? offset : -1, row, half, factor, me.lane);
  }
}

/// Keys that the thread's rows see; a visible_len outside [0, kv_len] is clamped and recorded.
__device__ __forceinline__ void read_visible(RowState& row, DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t const* const view = params.call.visible_len == nullptr ? nullptr : params.call.visible_len + static_cast<int64_t>(part.request) * params.call.q_tokens;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const index = part.row_begin + fragment_row(thread, half), token = index / params.h_q;
    row.visible[half] = part.kv_len;
    if (token >= params.call.q_tokens) continue;
    row.visible[half] = core::num_visible(part.kv_len, params.call.q_tokens, token, params.causal != 0, view);
    if (view != nullptr && view[token] != row.visible[half])
      record_fault(params.workspace, FLASHMLA_FAULT_VISIBLE_LEN, part.request, token, view[token]);
  }
}

template <class Element>
__device__ __forceinline__ void consume(Shared& s, DenseDecodeParams const& params, PartWalk walk, int32_t warpgroup) {
  Consumer me{warpgroup, static_cast<int32_t>(threadIdx.x % kWarpgroupThreads),
              static_cast<int32_t>(threadIdx.x % 32), {0, 0}};
  uint32_t count = 0;
  Part part;
  while (walk.next(part)) {
    RowState row;
#pragma unroll
    for (int i = 0; i < 128; ++i) row.o[i] = 0.0F;
    row.max[0] = row.max[1] = -INFINITY;
    row.sum[0] = row.sum[1] = 0.0F;
    uint32_t rope[4][4];
    load_q_rope<Element>(rope, params, part, me.thread);
    read_visible(row, params, part, me.thread);
    load_q_latent<Element>(s, params, part);
    ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);
    attend<Element>(row, s, params, part, rope, count, me);
    count += part.num_tiles;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 1);
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 2);
      if (me.lane % 4 == 0) s.row_sum[me.warpgroup][fragment_row(me.thread, half)] = row.sum[half];
    }
    ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);  // both shares of l are there, and Q may be overwritten
    write_row(row, 0, s, params, part, me);
    write_row(row, 1, s, params, part, me);
  }
}

// -------------------------------------------------------------------------------------------------- kernel --

__device__ __forceinline__ void initialise_barriers(Shared& s) {
  for (int stage = 0; stage < kStages; ++stage) {
    for (uint64_t& barrier : s.full[stage]) ptx::mbarrier_init(barrier, 1);
    for (uint64_t& barrier : s.empty[stage]) ptx::mbarrier_init(barrier, 4);
  }
  for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
    ptx::mbarrier_init(s.p_ready[warpgroup], 4);
    ptx::mbarrier_init(s.p_free[warpgroup], 4);
  }
  ptx::fence_mbarrier_init();
}

/// False, and recorded, for a schedule of another batch or row count.
__device__ __forceinline__ bool schedule_fits(DenseDecodeParams const& params) {
  core::ScheduleHeader const header = *static_cast<core::ScheduleHeader const*>(params.schedule);
  bool const fits = header.magic == core::kScheduleMagic && header.batch == params.call.batch && header.q_tokens == params.call.q_tokens &&
                    header.tile_rows == params.group * kCtaRows;
  if (!fits && blockIdx.x == 0 && threadIdx.x == 0) record_fault(params.workspace, FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, header.batch);
  return fits;
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 1) dense_decode_kernel(CUtensorMap const __grid_constant__ map, DenseDecodeParams const __grid_constant__ params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x == 0) initialise_barriers(s);
  if (threadIdx.x == kConsumerThreads) ptx::prefetch_tensor_map(&map);
  __syncthreads();
  ptx::grid_dependency_wait();  // schedule, lengths, tables, q and cache may be the work of the grids before
  ptx::grid_launch_dependents();
  if (!schedule_fits(params)) return;
  PartWalk const walk(params, blockIdx.x / params.group, blockIdx.x % params.group);
  // Through a shuffle, so that the compiler knows it to be uniform: wgmma must not stand in divergent code.
  int32_t const warpgroup = __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x / kWarpgroupThreads), 0);
  if (warpgroup == 2) {
    ptx::register_decrease<kProducerRegisters>();
    if (threadIdx.x < kConsumerThreads + 32) produce(s, &map, params, walk);
  } else {
    ptx::register_increase<kConsumerRegisters>();
    consume<Element>(s, params, walk, warpgroup);
  }
}

}  // namespace flashmla::cuda::dense_decode
