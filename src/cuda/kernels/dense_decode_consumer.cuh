// The steps of a consumer warpgroup of dense_decode.cuh on its tiles: load Q, QK, mask, softmax, publish, PV.
#pragma once

#include "cuda/kernels/dense_decode_state.cuh"
#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/math.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/sync.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/tile/fragment.hpp"
#include "cuda/tile/matrix_descriptor.hpp"

namespace flashmla::cuda::dense_decode {

struct Consumer {
  int32_t warpgroup;  // 0 left, 1 right
  int32_t thread;     // in the warpgroup
  int32_t lane;
  uint32_t given, taken;  // 1: an odd number of tiles whose P this warpgroup has published, and taken from the other
  uint32_t tiles;  // of the parts before this one; bits 30 and 31: partial results written so far. A register less that the tiles miss

  static constexpr uint32_t kEvent = 1U << 30;
  [[nodiscard]] __device__ __forceinline__ uint32_t events() const { return tiles / kEvent; }
};

/// One arrival a warp, after all its lanes have got here.
__device__ __forceinline__ void arrive_warp(uint64_t& barrier, int32_t lane) {
  __syncwarp();
  if (lane == 0) ptx::mbarrier_arrive(barrier);
}

/// Eight columns of a row of Q, or zeros of one that does not exist. cp_async_wait_all waits for them.
__device__ __forceinline__ void copy_q_chunk(uint32_t target, uint16_t const* source, bool exists, DenseDecodeParams const& params) {
  if (params.q_is_aligned) {
    ptx::cp_async_16(target, source, exists ? 16 : 0);
  } else {
    for (int e = 0; e < 8; ++e) ptx::store_shared_2(target + e * 2, exists ? source[e] : 0);
  }
}

/// Q's latent columns where no tensor map describes them (rows unevenly spaced or unaligned); rows past the last are zeros.
template <int kLatent>
__device__ __forceinline__ void load_q_latent(Shared& s, DenseDecodeParams const& params, Part const& part) {
  constexpr int kChunks = kLatent / 8;  // of a row, 16 bytes each
  auto const* const q = static_cast<uint16_t const*>(params.call.q_nope);
  int32_t const rows = part.rows.num_rows - part.rows.row_begin;
#pragma unroll 1
  for (int32_t row = threadIdx.x / kChunks; row < kCtaRows; row += kConsumerThreads / kChunks) {
    int32_t const chunk = threadIdx.x % kChunks;
    uint32_t const target = ptx::shared_address(s.q[chunk / 8]) + swizzled_offset(row, chunk % 8);
    uint16_t const* const source =
        q + chunk * 8 +
        row_offset(params.call.q_nope_stride, part.rows, row_target(params, part.rows, part.rows.row_begin + (row < rows ? row : 0)));
    copy_q_chunk(target, source, row < rows, params);
  }
  ptx::cp_async_wait_all();
  ptx::fence_proxy_async_shared();
  ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);
}

/// Q's RoPE columns as the A fragments of four k-steps; of rows past the last, whose results nobody reads, some other's. Where RoPE
/// has 32 columns, the last two steps multiply zeros of Q by zeros, which is what the copies fill the box with.
template <int kLatent>
__device__ __forceinline__ void load_q_rope(uint32_t (&rope)[4][4], DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t const rows = part.rows.num_rows - part.rows.row_begin;
  uint16_t const* source[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t const row = fragment_row(thread, half);
    source[half] =
        static_cast<uint16_t const*>(params.call.q_pe) + fragment_column(thread, 0) +
        row_offset(params.call.q_pe_stride, part.rows, row_target(params, part.rows, part.rows.row_begin + (row < rows ? row : 0)));
  }
  bool const is_short = is_rope_short<kLatent>(params);
  if (params.q_is_aligned) {
#pragma unroll
    for (int i = 0; i < 16; ++i)
      rope[i / 4][i % 4] = is_short && i >= 8 ? 0U : __ldg(reinterpret_cast<uint32_t const*>(source[i % 2] + (i / 2) * 8));
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i)
      rope[i / 4][i % 4] =
          is_short && i >= 8 ? 0U : source[i % 2][(i / 2) * 8] | static_cast<uint32_t>(source[i % 2][(i / 2) * 8 + 1]) << 16;
  }
}

/// Brings the RoPE columns of the next part's Q into L2 while this part's rows are written, if the part is known already.
__device__ __forceinline__ void prefetch_q_rope(Shared& s, DenseDecodeParams const& params, uint32_t part_index, int32_t thread) {
  Part const& part = s.parts[part_index % 2];
  if (!ptx::mbarrier_test(s.announced, part_index & 1) || part.rows.request < 0 || thread >= kCtaRows) return;
  int32_t const row = part.rows.row_begin + thread;
  if (row < part.rows.num_rows)
    ptx::prefetch_l2(static_cast<uint16_t const*>(params.call.q_pe) +
                     row_offset(params.call.q_pe_stride, part.rows, row_target(params, part.rows, row)));
}

/// Where the operands of S = Q K^T lie: the half that load_copies fills first, then the other.
template <int kLatent>
struct QkOperands {
  uint32_t first_copy[2];
  uint64_t q[2], k[2], k_rope;
};

template <Paging kPaging, int kLatent>
__device__ __forceinline__ QkOperands<kLatent> qk_operands(Shared& s, uint32_t stage, int32_t owner) {
  uint32_t const first = owner == 0 ? kHalfBoxes<kLatent> : 0, last = kHalfBoxes<kLatent> - first;  // boxes
  uint64_t const q = k_major_descriptor(ptx::shared_address(s.q));
  uint64_t const k = k_major_descriptor(ptx::shared_address(s.kv[stage]), StageLayout<kPaging, kLatent>::kNextAtom);
  uint64_t const rope = k_major_descriptor(ptx::shared_address(s.kv[stage][kLatentBoxes<kLatent>]));
  return {{first / kCopyBoxes<kLatent>, last / kCopyBoxes<kLatent>},
          {advance(q, first * kBoxBytes), advance(q, last * kBoxBytes)},
          {advance(k, first * kBoxBytes), advance(k, last * kBoxBytes)},
          rope};
}

/// Waits for a copy. What threads have copied, rather than TMA, wgmma sees only behind a fence.
template <Paging kPaging>
__device__ __forceinline__ void wait_landed(uint64_t& full, uint32_t parity) {
  ptx::mbarrier_wait(full, parity);
  if constexpr (kPaging == Paging::kRows) ptx::fence_proxy_async_shared();
}

/// Copy kCopy (0 or 1) of a half, as soon as it has landed.
template <class Element, Paging kPaging, int kHalf, int kCopy, int kLatent>
__device__ __forceinline__ void multiply_qk(float (&scores)[32], QkOperands<kLatent> const& operands, uint64_t (&full)[kCopies],
                                            uint32_t parity) {
  if (kPaging != Paging::kBoxes || kCopy == 0) wait_landed<kPaging>(full[operands.first_copy[kHalf] + kCopy], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4 * kCopyBoxes<kLatent>; ++i) {
    uint32_t const box = kCopy * kCopyBoxes<kLatent> + i / 4, column = i % 4 * kKMajorStepBytes;
    ptx::wgmma_m64n64k16_ss<Element>(scores, advance(operands.q[kHalf], box * kBoxBytes + column),
                                     advance(operands.k[kHalf], box * StageLayout<kPaging, kLatent>::kNextBox + column),
                                     kHalf > 0 || kCopy > 0 || i > 0);
  }
}

template <class Element, Paging kPaging, int kLatent>
__device__ __forceinline__ void multiply_qk_rope(float (&scores)[32], QkOperands<kLatent> const& operands, uint32_t (&rope)[4][4],
                                                 uint64_t (&full)[kCopies], uint32_t parity) {
  wait_landed<kPaging>(full[kRopeCopy], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ptx::wgmma_m64n64k16_rs<Element>(scores, rope[step], advance(operands.k_rope, step * kKMajorStepBytes), true);
}

/// Multiplies O and l by 2^(m - new m) where some row of the warp needs it.
template <int kLatent>
__device__ __forceinline__ void rescale(RowState<kLatent>& row, float const (&new_max)[2]) {
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
    for (int block = 0; block < kOutputs<kLatent> / 4; ++block) {
      row.o[accumulator_index(block, half, 0)] *= factor[half];
      row.o[accumulator_index(block, half, 1)] *= factor[half];
    }
  }
}

/// V rows past the end, or of a tile whose page does not exist, may hold NaN; 0 * NaN poisons O, so they become zeros.
template <Paging kPaging, int kLatent>
__device__ __forceinline__ void zero_tail(Shared& s, uint32_t stage, int32_t valid, Consumer const& me) {
  using Layout = StageLayout<kPaging, kLatent>;
  constexpr int kHalf = kHalfBoxes<kLatent>;
  for (int32_t row = me.thread / 8; row < kTileTokens; row += kWarpgroupThreads / 8) {
    if (row < valid) continue;
    uint32_t const offset = row / 8 * Layout::kNextAtom + row % 8 * kSwizzleRowBytes + me.thread % 8 * 16;
#pragma unroll
    for (int box = 0; box < kLatentBoxes<kLatent>; ++box)
      ptx::store_shared_16(ptx::shared_address(s.kv[stage][box / kHalf * kHalf]) + box % kHalf * Layout::kNextBox + offset, 0, 0, 0, 0);
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

/// Scores of tokens whose page does not exist, a bit each, become -inf; the copies have left zeros there.
__device__ __forceinline__ void mask_holes(float (&scores)[32], uint16_t const (&holes)[4], int32_t thread) {
  int const shift = fragment_column(thread, 0);
  uint32_t const words[2] = {(holes[0] | static_cast<uint32_t>(holes[1]) << 16) >> shift,
                             (holes[2] | static_cast<uint32_t>(holes[3]) << 16) >> shift};
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    int const column = fragment_column(0, i / 4) + i % 2;
    if ((words[column / 32] >> column % 32 & 1U) != 0) scores[i] = -INFINITY;
  }
}

/// Whether m may have to move in a row of the warp: some score exceeds it by more than the lazy margin, or it is so small that negative
/// scores can. Of nonnegative floats the largest is that of the largest bits, and Hopper has a maximum of three integers.
__device__ __forceinline__ bool may_move(float const (&scores)[32], float const (&max)[2], float scale_log2) {
  float largest[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int32_t bits = __float_as_int(scores[accumulator_index(0, half, 0)]);
#pragma unroll
    for (int block = 0; block < 8; ++block) {
      if (block > 0) bits = ::max(bits, __float_as_int(scores[accumulator_index(block, half, 0)]));
      bits = ::max(bits, __float_as_int(scores[accumulator_index(block, half, 1)]));
    }
    largest[half] = __int_as_float(bits);
  }
  bool const exceeds = largest[0] * scale_log2 > max[0] + kLazyMaximum || largest[1] * scale_log2 > max[1] + kLazyMaximum;
  return __any_sync(0xffffffffU, exceeds || fminf(max[0], max[1]) < -kLazyMaximum);
}

/// The largest score of the thread's row `half`, over the four threads that share it, in log2 units.
__device__ __forceinline__ float row_maximum(float const (&scores)[32], int half, float scale_log2) {
  float largest = -INFINITY;
#pragma unroll
  for (int block = 0; block < 8; ++block)
    largest = fmaxf(largest, fmaxf(scores[accumulator_index(block, half, 0)], scores[accumulator_index(block, half, 1)]));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
  return fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2)) * scale_log2;
}

/// m after this tile: m before, unless the tile exceeds it by more than the lazy margin.
__device__ __forceinline__ void move_maximum(float const (&scores)[32], float (&max)[2], float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const largest = row_maximum(scores, half, scale_log2);
    if (largest > max[half] + kLazyMaximum) max[half] = largest;
  }
}

/// P = 2^(c S - m), packed as A fragments, and this thread's sums. Where m is -inf, all scores are, and P is 0.
template <class Element>
__device__ __forceinline__ void exponentials(float const (&scores)[32], uint32_t (&p)[4][4], float const (&max)[2], float (&sum)[2],
                                             float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const reference = fmaxf(max[half], kLowestReference);
#pragma unroll
    for (int block = 0; block < 8; ++block) {
      float const low = ptx::exp2_approx(fmaf(scores[accumulator_index(block, half, 0)], scale_log2, -reference));
      float const high = ptx::exp2_approx(fmaf(scores[accumulator_index(block, half, 1)], scale_log2, -reference));
      sum[half] = block == 0 ? low + high : sum[half] + (low + high);
      p[block / 2][half + 2 * (block % 2)] = pack<Element>(low, high);
    }
  }
}

/// Where a thread stores P for the other warpgroup: its first 16 bytes; those of a later step lie 32 bytes further, swizzled.
__device__ __forceinline__ uint32_t published_place(Shared& s, Consumer const& me) {
  uint32_t const row = (me.thread / 32) * 16 + (me.lane / 8 % 2) * 8 + me.lane % 8;
  return ptx::shared_address(s.p[me.warpgroup]) + swizzled_offset(row, me.lane / 16);
}

/// Gives P to the other warpgroup, and m if it may have moved.
__device__ __forceinline__ void publish(Shared& s, uint32_t place, uint32_t (&p)[4][4], float const (&new_max)[2], bool has_moved,
                                        Consumer& me) {
#pragma unroll
  for (int step = 0; step < 4; ++step) ptx::stmatrix_x4(place ^ (step * 2 * 16), p[step]);
  if (has_moved) {
    if (me.lane % 4 == 0) {
      s.row_max[me.warpgroup][fragment_row(me.thread, 0)] = new_max[0];
      s.row_max[me.warpgroup][fragment_row(me.thread, 1)] = new_max[1];
    }
    s.has_moved[me.warpgroup][me.thread / 32] = 1;
  }
  ptx::fence_proxy_async_shared();
  arrive_warp(s.p_ready[me.warpgroup], me.lane);
  me.given ^= 1;
}

/// Takes over m of the other warpgroup's tile.
template <int kLatent>
__device__ __forceinline__ void take_maximum(RowState<kLatent>& row, Shared& s, Consumer const& me) {
  int const other = 1 - me.warpgroup;
  uint32_t& has_moved = s.has_moved[other][me.thread / 32];
  if (has_moved == 0) return;
  float const max[2] = {s.row_max[other][fragment_row(me.thread, 0)], s.row_max[other][fragment_row(me.thread, 1)]};
  __syncwarp();
  has_moved = 0;
  rescale(row, max);
}

template <Paging kPaging, int kLatent>
__device__ __forceinline__ uint64_t value_descriptor(Shared& s, uint32_t stage, int32_t warpgroup) {
  using Layout = StageLayout<kPaging, kLatent>;
  return n_major_descriptor(ptx::shared_address(s.kv[stage][warpgroup * kHalfBoxes<kLatent>]), Layout::kNextBox, Layout::kNextAtom);
}

/// A k-step of O += P V, P in shared memory.
template <class Element, int kCount>
__device__ __forceinline__ void multiply_pv(float (&o)[kCount], uint64_t p, uint64_t v) {
  if constexpr (kCount == 128) ptx::wgmma_m64n256k16_ss<Element>(o, p, v, true);
  else ptx::wgmma_m64n128k16_ss<Element>(o, p, v, true);
}

/// The same with P in registers.
template <class Element, int kCount>
__device__ __forceinline__ void multiply_pv(float (&o)[kCount], uint32_t const (&p)[4], uint64_t v) {
  if constexpr (kCount == 128) ptx::wgmma_m64n256k16_rs<Element>(o, p, v, true);
  else ptx::wgmma_m64n128k16_rs<Element>(o, p, v, true);
}

/// Starts O += P V with the other warpgroup's P, once that is there.
template <class Element, Paging kPaging, int kLatent>
__device__ __forceinline__ void begin_other_pv(RowState<kLatent>& row, Shared& s, uint32_t stage, Consumer& me) {
  int const other = 1 - me.warpgroup;
  wait_landed<kPaging>(s.p_ready[other], me.taken);
  me.taken ^= 1;
  take_maximum(row, s, me);
  uint64_t const p = k_major_descriptor(ptx::shared_address(s.p[other]));
  uint64_t const v = value_descriptor<kPaging, kLatent>(s, stage, me.warpgroup);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    multiply_pv<Element>(row.o, advance(p, step * kKMajorStepBytes), advance(v, step * 2 * StageLayout<kPaging, kLatent>::kNextAtom));
  ptx::wgmma_commit();
}

/// After that product: lets go of the other's P and of this half of the stage.
__device__ __forceinline__ void end_other_pv(Shared& s, uint32_t stage, Consumer const& me) {
  arrive_warp(s.empty[stage][me.warpgroup], me.lane);
  arrive_warp(s.p_free[1 - me.warpgroup], me.lane);
}

/// O += P V with this warpgroup's own P. While that runs, lets go of what QK has read: RoPE, and Q if no own tile is to come.
template <class Element, Paging kPaging, int kLatent>
__device__ __forceinline__ void own_pv(RowState<kLatent>& row, Shared& s, uint32_t (&p)[4][4], uint32_t stage, bool is_last,
                                       Consumer const& me) {
  uint64_t const v = value_descriptor<kPaging, kLatent>(s, stage, me.warpgroup);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    multiply_pv<Element>(row.o, p[step], advance(v, step * 2 * StageLayout<kPaging, kLatent>::kNextAtom));
  ptx::wgmma_commit();
  arrive_warp(s.empty[stage][kRope], me.lane);
  if (is_last) arrive_warp(s.q_free, me.lane);
  ptx::wgmma_wait<0>();
  ptx::pin_registers(row.o);
  arrive_warp(s.empty[stage][me.warpgroup], me.lane);
}

/// Whether parts may be staggered at all. Smaller pages come later than whole tiles, which is where it costs.
template <Paging kPaging, Calls kCalls>
inline constexpr bool kMayStagger = kPaging == Paging::kTiles && kCalls != Calls::kFew;

/// Whether a warpgroup takes its own keys ahead of the other's P: in staggered parts the right one does. It pays where CTAs in step
/// share what they read, so that arithmetic is the limit, and tiles come in time: with two CTAs, in parts of many tiles.
template <Paging kPaging, Calls kCalls>
__device__ __forceinline__ bool takes_keys_first(StartParams const& start, Part const& part, int32_t warpgroup) {
  constexpr int kManyTiles = 80;
  return kMayStagger<kPaging, kCalls> && warpgroup == 1 && (start.group > 2 || (start.group == 2 && part.num_tiles >= kManyTiles));
}

/// All tiles of a part: own ones in full, the other's as PV only. A warpgroup's own tiles all come into the same stage. What a tile has
/// to know is read before its scores are there: from then on the other warpgroup waits for every instruction.
template <class Element, Paging kPaging, Calls kCalls, int kLatent>
__device__ __forceinline__ void attend(RowState<kLatent>& row, Shared& s, DenseDecodeParams const& params, Part const& part,
                                       uint32_t (&rope)[4][4], Consumer& me) {
  bool const keys_first = takes_keys_first<kPaging, kCalls>(params.start, part, me.warpgroup);
  uint32_t const stage = uniform((me.tiles + me.warpgroup) % kStages);
  uint32_t parity = uniform((me.tiles + me.warpgroup) / kStages % 2);
  QkOperands const operands = qk_operands<kPaging, kLatent>(s, stage, me.warpgroup);
  int32_t left = part.num_tiles - me.warpgroup;  // from the next own tile on
  row.visible[0] -= (part.first_tile + me.warpgroup) * kTileTokens, row.visible[1] -= (part.first_tile + me.warpgroup) * kTileTokens;
  if (left <= 0) arrive_warp(s.q_free, me.lane);  // no tile of its own
  bool is_first = me.warpgroup == 0;
  for (; left > 0; left -= 2) {
    // The other's tile first: its stage is then on its way back to the producer while this one's K may still be landing.
    // If K is there already, two boxes of it keep the tensor cores busy behind that product.
    // Staggered parts: the right warpgroup multiplies its own K while the left one is at its softmax, and the other's P V during its
    // own softmax.
    bool const has_other = !is_first && !keys_first;
    if (has_other) begin_other_pv<Element, kPaging>(row, s, stage ^ 1, me);
    bool const has_landed = ptx::mbarrier_test(s.full[stage][operands.first_copy[0]], parity);
    if (has_other && !has_landed) {
      ptx::wgmma_wait<0>();
      end_other_pv(s, stage ^ 1, me);
    }
    float scores[32];
    multiply_qk<Element, kPaging, 0, 0>(scores, operands, s.full[stage], parity);
    ptx::wgmma_commit();
    if (has_other && has_landed) {
      ptx::wgmma_wait<1>();
      end_other_pv(s, stage ^ 1, me);
    }
    multiply_qk<Element, kPaging, 0, 1>(scores, operands, s.full[stage], parity);
    multiply_qk_rope<Element, kPaging>(scores, operands, rope, s.full[stage], parity);
    multiply_qk<Element, kPaging, 1, 0>(scores, operands, s.full[stage], parity);
    multiply_qk<Element, kPaging, 1, 1>(scores, operands, s.full[stage], parity);
    ptx::wgmma_commit();
    int32_t const valid = s.valid[stage];
    int32_t const limit[2] = {min(row.visible[0], valid), min(row.visible[1], valid)};
    bool const has_limit = min(limit[0], limit[1]) < kTileTokens;
    uint32_t place = published_place(s, me);
    ptx::hide_origin(place);
    ptx::mbarrier_wait(s.p_free[me.warpgroup], me.given ^ 1);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(scores);
    ptx::pin_registers(row.o);
    if (keys_first) begin_other_pv<Element, kPaging>(row, s, stage ^ 1, me);
    if (has_limit) {  // in all threads where the tile itself has an end: zero_tail is for the whole warpgroup
      if (valid < kTileTokens) zero_tail<kPaging, kLatent>(s, stage, valid, me);
      mask_scores(scores, limit, me.thread);
    }
    if constexpr (kPaging != Paging::kTiles) {
      uint16_t const(&holes)[4] = s.holes[stage];
      if ((holes[0] | holes[1] | holes[2] | holes[3]) != 0) mask_holes(scores, holes, me.thread);
    }
    uint32_t p[4][4];
    float new_max[2] = {row.max[0], row.max[1]}, sum[2];
    bool const has_moved = may_move(scores, new_max, params.scale_log2);
    if (has_moved) move_maximum(scores, new_max, params.scale_log2);
    exponentials<Element>(scores, p, new_max, sum, params.scale_log2);
    publish(s, place, p, new_max, has_moved, me);
    if constexpr (kMayStagger<kPaging, kCalls>) {
      ptx::wgmma_wait<0>();
      ptx::pin_registers(row.o);
      if (keys_first) end_other_pv(s, stage ^ 1, me);
    }
    if (has_moved) rescale(row, new_max);
    row.sum[0] += sum[0], row.sum[1] += sum[1];
    own_pv<Element, kPaging>(row, s, p, stage, left <= 2, me);
    row.visible[0] -= 2 * kTileTokens, row.visible[1] -= 2 * kTileTokens;
    parity ^= 1, is_first = false;
  }
  if (left == 0 && part.num_tiles > 0) {  // the last tile is the other's
    begin_other_pv<Element, kPaging>(row, s, stage ^ 1, me);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(row.o);
    end_other_pv(s, stage ^ 1, me);
  }
}

}  // namespace flashmla::cuda::dense_decode
