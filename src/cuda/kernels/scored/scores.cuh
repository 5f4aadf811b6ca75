// The score warpgroup of scored/kernel.cuh: Q in registers, S = Q K^T, mask, softmax, P to the output warpgroups.
#pragma once

#include "cuda/kernels/scored/state.cuh"
#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/tile/fragment.hpp"
#include "cuda/tile/matrix_descriptor.hpp"

namespace flashmla::cuda::dense_decode::scored {

/// What a score thread keeps about its two rows (halves 0 and 1, 8 rows apart).
struct ScoreRows {
  float max[2];  // m: reference of O and l, log2 units
  float sum[2];  // this thread's share of l
};

using QRegisters = uint32_t[kRegisterSteps][4];

/// Q's rows from memory into a stage, where no tensor map describes them (unevenly spaced or unaligned); rows past the last repeat the
/// first one, and nothing of them is written. Columns 0 .. 511 from q_nope, 512 .. 575 from q_pe.
__device__ __forceinline__ void copy_q(Shared& s, uint32_t slot, DenseDecodeParams const& params, Part const& part, int32_t thread) {
  constexpr int kChunks = kBoxes * 8;  // of a row, 16 bytes each
  int32_t const rows = part.rows.num_rows - part.rows.row_begin;
#pragma unroll 1
  for (int32_t i = thread; i < kCtaRows * kChunks; i += kWarpgroupThreads) {
    int32_t const row = i / kChunks, chunk = i % kChunks;
    RowTarget const target = row_target(params, part.rows, part.rows.row_begin + (row < rows ? row : 0));
    uint16_t const* const source =
        chunk < kRopeBox * 8
            ? static_cast<uint16_t const*>(params.call.q_nope) + row_offset(params.call.q_nope_stride, part.rows, target) + chunk * 8
            : static_cast<uint16_t const*>(params.call.q_pe) + row_offset(params.call.q_pe_stride, part.rows, target) + chunk % 8 * 8;
    uint32_t const place = ptx::shared_address(s.kv[slot][chunk / 8]) + swizzled_offset(row, chunk % 8);
#pragma unroll
    for (int e = 0; e < 8; ++e) ptx::store_shared_2(place + e * 2, source[e]);
  }
  ptx::named_barrier_sync(kScoreBarrier, kWarpgroupThreads);
}

/// Q's 576 columns as A fragments of 36 k-steps, from the stage that they have come to.
__device__ __forceinline__ void take_q(QRegisters& q, Shared& s, DenseDecodeParams const& params, Part const& part,
                                       RingPosition const& at) {
  int32_t const thread = threadIdx.x % kWarpgroupThreads;
  ptx::mbarrier_wait(s.full[at.slot][0], at.parity);
  ptx::mbarrier_wait(s.full[at.slot][1], at.parity);
  if (!params.q_is_tensor) copy_q(s, at.slot, params, part, thread);
  uint32_t const first = ptx::shared_address(s.kv[at.slot]) + swizzled_offset(thread / 32 * 16 + thread % 16, thread / 16 % 2);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t const source = (first ^ (step % 4 * kKMajorStepBytes)) + step / 4 * kBoxBytes;
    if (step >= kSharedSteps) {
      ptx::ldmatrix_x4(q[step - kSharedSteps], source);
      continue;
    }
    uint32_t fragment[4];
    ptx::ldmatrix_x4(fragment, source);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ptx::store_shared_4(ptx::shared_address(s.q[step]) + i / 2 * (kStepBytes / 2) + fragment_row(thread, i % 2) * 16 + thread % 4 * 4,
                          fragment[i]);
  }
  ptx::fence_proxy_async_shared();  // s.q before wgmma reads it, and the stage before TMA fills it again
  arrive_warp(s.qk_done[at.slot], thread % 32);
  arrive_warp(s.p_ready[at.slot], thread % 32);
  ptx::mbarrier_wait(s.qk_done[at.slot], at.parity);  // all of s.q is there
}

/// Starts S = Q K^T, side by side as they land.
template <class Element, Paging kPaging>
__device__ __forceinline__ void begin_qk(float (&scores)[32], QRegisters& q, Shared& s, RingPosition const& at) {
  using Layout = StageLayout<kPaging, kLatent>;
  uint64_t const k = k_major_descriptor(ptx::shared_address(s.kv[at.slot]), Layout::kNextAtom);
  uint64_t const k_rope = k_major_descriptor(ptx::shared_address(s.kv[at.slot]));
  uint64_t const shared_q = plain_descriptor(ptx::shared_address(s.q), kStepBytes / 2, 128);
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (i == 0 || i == kSecondSideStep) ptx::mbarrier_wait(s.full[at.slot][i == 0 ? 0 : 1], at.parity);
    if (i == 0 || i == kSecondSideStep) ptx::wgmma_fence();
    int const box = i / 4, in_box = i % 4 * kKMajorStepBytes;
    uint64_t const keys = box == kRopeBox
                              ? advance(k_rope, kRopeBox * kBoxBytes + in_box)
                              : advance(k, box / kSideBoxes * kSideBoxes * kBoxBytes + box % kSideBoxes * Layout::kNextBox + in_box);
    if (i < kSharedSteps) ptx::wgmma_m64n64k16_ss<Element>(scores, advance(shared_q, i * kStepBytes), keys, i > 0);
    else ptx::wgmma_m64n64k16_rs<Element>(scores, q[i - kSharedSteps], keys, true);
  }
  ptx::wgmma_commit();
}

/// Masks a tile that not all of the warp's rows see all of. Not worth registers among the other tiles: worked out here.
__device__ __forceinline__ void mask_tile(float (&scores)[32], DenseDecodeParams const& params, Part const& part, int32_t valid,
                                          int32_t missing, int32_t tile) {
  int32_t const thread = threadIdx.x % kWarpgroupThreads;
  int32_t limit[2];
  read_visible(limit, params, part, thread, [](int32_t, int32_t) {});
#pragma unroll
  for (int half = 0; half < 2; ++half) limit[half] = min(limit[half] - (part.first_tile + tile) * kTileTokens, valid);
  mask_scores(scores, limit, thread);
  if (missing == 0) return;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    int32_t const token = fragment_column(thread, i / 4) + i % 2;
    if ((missing >> (token / params.start.page_tokens) & 1) != 0) scores[i] = -INFINITY;
  }
}

/// Moves m where the tile exceeds it by more than the lazy margin, by whole numbers, so that O and l are divided by powers of two; the first
/// tile's maximum is m itself: P is then just below 1, where a 16-bit number is most precise. Returns in `shift` what O has to be
/// divided by, log2.
__device__ __forceinline__ void shift_maximum(float const (&scores)[32], ScoreRows& row, int32_t (&shift)[2], float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const largest = row_maximum(scores, half, scale_log2);
    shift[half] = 0;
    if (!(largest > row.max[half] + kLazyMaximum)) continue;
    if (row.max[half] == -INFINITY) {  // O and l are 0, and stay it whatever they are divided by
      row.max[half] = largest;
      continue;
    }
    float const step = ceilf(largest - row.max[half]);
    row.max[half] += step;
    shift[half] = static_cast<int32_t>(fminf(step, kVanished));
    row.sum[half] *= shift_factor(shift[half]);
  }
}

/// P = 2^(c S - m) to where the tile's RoPE columns were; m and l move on. `place`: the thread's first 16 bytes of P.
template <class Element>
__device__ __forceinline__ void softmax(float const (&scores)[32], ScoreRows& row, Shared& s, RingPosition const& at, uint32_t place,
                                        float scale_log2) {
  int32_t const thread = threadIdx.x % kWarpgroupThreads;
  bool const has_moved = may_move(scores, row.max, scale_log2);
  if (has_moved) {
    int32_t shift[2];
    shift_maximum(scores, row, shift, scale_log2);
    if (thread % 4 == 0) {
      s.shift[at.slot][fragment_row(thread, 0)] = static_cast<uint8_t>(shift[0]);
      s.shift[at.slot][fragment_row(thread, 1)] = static_cast<uint8_t>(shift[1]);
    }
  }
  if (thread % 32 == 0) s.has_moved[at.slot][thread / 32] = has_moved ? 1 : 0;
  float const reference[2] = {fmaxf(row.max[0], kLowestReference), fmaxf(row.max[1], kLowestReference)};
  uint32_t const first = ptx::shared_address(s.kv[at.slot][kRopeBox]) + place;
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    uint32_t p[2][4];
#pragma unroll
    for (int block = 0; block < 4; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const low_index = accumulator_index(4 * pair + block, half, 0);
        float const low = ptx::exp2_approx(fmaf(scores[low_index], scale_log2, -reference[half]));
        float const high = ptx::exp2_approx(fmaf(scores[low_index + 1], scale_log2, -reference[half]));
        row.sum[half] += low + high;
        p[block / 2][half + 2 * (block % 2)] = pack<Element>(low, high);
      }
    }
    if (pair == 0) ptx::mbarrier_wait(s.qk_done[at.slot], at.parity);  // every warp is done with the RoPE columns
    ptx::stmatrix_x4(first ^ (2 * pair * kKMajorStepBytes), p[0]);
    ptx::stmatrix_x4(first ^ ((2 * pair + 1) * kKMajorStepBytes), p[1]);
  }
}

/// m and l of the part's rows to the output warpgroups.
__device__ __forceinline__ void give_stats(Shared& s, ScoreRows const& row, uint32_t part_index) {
  int32_t const thread = threadIdx.x % kWarpgroupThreads;
  ptx::mbarrier_wait(s.stats_free, (part_index & 1) ^ 1);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = row.sum[half];
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    if (thread % 4 == 0) s.row_sum[fragment_row(thread, half)] = sum, s.row_max[fragment_row(thread, half)] = row.max[half];
  }
  arrive_warp(s.stats_ready, thread % 32);
}

/// Leading tiles of the part that all of the warp's rows see all of.
__device__ __forceinline__ int32_t num_whole_tiles(DenseDecodeParams const& params, Part const& part, int32_t thread) {
  int32_t visible[2];
  read_visible(visible, params, part, thread, [&](int32_t token, int32_t found) {
    keep_fault(params.workspace, FLASHMLA_FAULT_VISIBLE_LEN, part.rows.request, token, found);
  });
  int32_t const whole = min(visible[0], visible[1]) / kTileTokens - part.first_tile;
  return static_cast<int32_t>(__reduce_min_sync(0xffffffffU, static_cast<uint32_t>(max(0, min(whole, part.num_tiles)))));
}

template <class Element, Paging kPaging>
__device__ __forceinline__ void score(Shared& s, DenseDecodeParams const& params) {
  int32_t const thread = threadIdx.x % kWarpgroupThreads;
  QRegisters q;
  RingPosition at;
  for (uint32_t part_index = 0;; ++part_index) {
    ptx::mbarrier_wait(s.announced, part_index & 1);
    Part const& part = s.parts[part_index % 2];
    if (uniform(part.rows.request) == ~0U) return;
    int32_t const num_tiles = uniform(part.num_tiles);
    if (num_tiles > 0 && uniform(part.keeps_q) == 0) {
      take_q(q, s, params, part, at);
      at.advance();
    }
    ScoreRows row{{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    int32_t const whole = num_whole_tiles(params, part, thread);
    uint32_t const place = swizzled_offset(thread / 32 * 16 + thread % 16, thread / 16 % 2);
#pragma unroll 1
    for (int32_t tile = 0; tile < num_tiles; ++tile) {
      float scores[32];
      begin_qk<Element, kPaging>(scores, q, s, at);
      int32_t const valid = s.tokens[at.slot].valid, missing = kPaging == Paging::kTiles ? 0 : s.tokens[at.slot].missing;
      ptx::wgmma_wait<0>();
      ptx::pin_registers(scores);
      arrive_warp(s.qk_done[at.slot], thread % 32);
      if (tile >= whole || valid == 0 || missing != 0) mask_tile(scores, params, part, valid, missing, tile);
      softmax<Element>(scores, row, s, at, place, params.scale_log2);
      ptx::fence_proxy_async_shared();
      arrive_warp(s.p_ready[at.slot], thread % 32);
      at.advance();
    }
    give_stats(s, row, part_index);
  }
}

}  // namespace flashmla::cuda::dense_decode::scored
