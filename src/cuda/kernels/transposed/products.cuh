// The tiles of transposed/kernel.cuh: QK, exchange of halves, mask, softmax, PV, by all eight multiplying warps together.
#pragma once

#include "cuda/kernels/transposed/state.cuh"

namespace flashmla::cuda::dense_decode::transposed {

/// D += A B with A [64, 16] K-major or M-major, B [16, kRows] K-major.
template <class Element, bool kMMajor>
__device__ __forceinline__ void multiply(float (&d)[kScores], uint64_t a, uint64_t b, bool accumulate) {
  ptx::wgmma_m64n16k16_ss<Element, kMMajor>(d, a, b, accumulate);
}

/// S^T += K Q^T over the columns of this side and half of RoPE's: 18 k-steps of a tile of 64 tokens.
template <class Element>
__device__ __forceinline__ void multiply_qk(float (&scores)[kScores], Shared& s, uint32_t stage, uint32_t parity, uint32_t buffer,
                                            int32_t side) {
  constexpr int kQueryBox = kRows * kSwizzleRowBytes;
  uint64_t const k = k_major_descriptor(ptx::shared_address(s.kv[stage])), q = k_major_descriptor(ptx::shared_address(s.q[buffer]));
  uint64_t const k_side = advance(k, side * kSideBoxes * kBoxBytes), q_side = advance(q, side * kSideBoxes * kQueryBox);
  uint64_t const k_rope = advance(k, kRopeBox * kBoxBytes + side * 2 * kKMajorStepBytes);
  uint64_t const q_rope = advance(q, kRopeBox * kQueryBox + side * 2 * kKMajorStepBytes);
  ptx::mbarrier_wait(s.full[stage][kRope], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 2; ++i)
    multiply<Element, false>(scores, advance(k_rope, i * kKMajorStepBytes), advance(q_rope, i * kKMajorStepBytes), i > 0);
  ptx::mbarrier_wait(s.full[stage][side], parity);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4 * kSideBoxes; ++i)
    multiply<Element, false>(scores, advance(k_side, i / 4 * kBoxBytes + i % 4 * kKMajorStepBytes),
                             advance(q_side, i / 4 * kQueryBox + i % 4 * kKMajorStepBytes), true);
  ptx::wgmma_commit();
}

/// Each warpgroup has a sum over half of the columns; each thread gets the whole one of one token, for kThreadRows rows.
__device__ __forceinline__ void exchange(float (&own)[kThreadRows], float const (&scores)[kScores], Shared& s, Multiplier const& me) {
  bool const is_left = me.side == 0;
  float given[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    float const of_left = scores[accumulator_index(i / 2, 0, i % 2)], of_right = scores[accumulator_index(i / 2, 1, i % 2)];
    own[i] = is_left ? of_left : of_right, given[i] = is_left ? of_right : of_left;
  }
  s.exchanged[1 - me.side][me.thread] = make_float4(given[0], given[1], given[2], given[3]);
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
  float4 const more = s.exchanged[me.side][me.thread];
  own[0] += more.x, own[1] += more.y, own[2] += more.z, own[3] += more.w;
}

/// V rows past the end, or of a page that does not exist, may hold NaN; 0 * NaN poisons O, so they become zeros.
__device__ __forceinline__ void zero_tail(Shared& s, uint32_t stage, int32_t valid) {
  for (int32_t row = valid + static_cast<int32_t>(threadIdx.x / 8); row < kTileTokens; row += kOutputThreads / 8) {
    uint32_t const offset = row * kSwizzleRowBytes + threadIdx.x % 8 * 16;
#pragma unroll
    for (int box = 0; box < kRopeBox; ++box) ptx::store_shared_16(ptx::shared_address(s.kv[stage][box]) + offset, 0, 0, 0, 0);
  }
}

/// m of all rows after a tile that may have moved it, and O and l relative to it.
__device__ __forceinline__ void move_maximum(State& state, float const (&own)[kThreadRows], Shared& s, float scale_log2, bool is_first,
                                             Multiplier const& me) {
  float largest[kThreadRows], factor[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) largest[i] = own[i];
  over_lanes(largest, Largest{});
  over_warps(largest, s.warp_max, me, Largest{});
  if (is_first) {  // O and l are 0
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) state.max[i] = largest[i] * scale_log2;
    return;
  }
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    float const found = largest[i] * scale_log2, before = state.max[i];
    if (found > before + kLazyMaximum) state.max[i] = found;
    factor[i] = before == state.max[i] ? 1.0F : ptx::exp2_approx(before - state.max[i]);
    state.sum[i] *= factor[i];
  }
#pragma unroll
  for (int block = 0; block < kSideBoxes; ++block)
#pragma unroll
    for (int i = 0; i < kScores; ++i) state.o[block][i] *= factor[i / 4 * 2 + i % 2];
}

/// P^T of the thread's token to shared memory, and its sums.
template <class Element>
__device__ __forceinline__ void exponentials(float (&sums)[kThreadRows], State const& state, float const (&own)[kThreadRows],
                                             uint32_t place, float scale_log2) {
  uint32_t words[kRows / 8];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) sums[i] = ptx::exp2_approx(fmaf(own[i], scale_log2, -fmaxf(state.max[i], kLowestReference)));
#pragma unroll
  for (int i = 0; i < kRows / 8; ++i) words[i] = pack<Element>(sums[2 * i], sums[2 * i + 1]);
  ptx::stmatrix_transposed(place, words);
  ptx::fence_proxy_async_shared();
}

/// Where the thread's address of P lies: its warp's eight tokens of a row.
__device__ __forceinline__ uint32_t p_place(Shared& s, Multiplier const& me) {
  uint32_t const row = static_cast<uint32_t>(me.lane) % kRows;
  return ptx::shared_address(s.p) + swizzled_offset(row, static_cast<uint32_t>(me.thread / 32 * 2 + me.side));
}

/// O^T += V^T P^T over this side's columns.
template <class Element>
__device__ __forceinline__ void begin_pv(State& state, Shared& s, uint32_t stage, int32_t side) {
  uint64_t const v = n_major_descriptor(ptx::shared_address(s.kv[stage][side * kSideBoxes]), kBoxBytes);
  uint64_t const p = k_major_descriptor(ptx::shared_address(s.p));
  ptx::wgmma_fence();
#pragma unroll
  for (int block = 0; block < kSideBoxes; ++block)
#pragma unroll
    for (int step = 0; step < 4; ++step)
      multiply<Element, true>(state.o[block], advance(v, block * kBoxBytes + step * 2 * kAtomBytes), advance(p, step * kKMajorStepBytes),
                              true);
  ptx::wgmma_commit();
}

/// l of all tokens: of the thread's rows in `state.sum`.
__device__ __forceinline__ void add_up_sums(State& state, Shared& s, Multiplier const& me) {
  over_lanes(state.sum, Sum{});
  over_warps(state.sum, s.warp_sum, me, Sum{});
}

/// All tiles of a part; then `state.sum` is l.
template <class Element>
__device__ __forceinline__ void attend(State& state, Shared& s, DenseDecodeParams const& params, Part const& part, PartPlace const& place,
                                       Multiplier const& me) {
  uint32_t count = place.tiles;
  int32_t const num_tiles = static_cast<int32_t>(uniform(part.num_tiles));
  uint32_t const p = p_place(s, me);
  float const scale_log2 = params.scale_log2;
#pragma unroll 1
  for (int32_t tile = 0; tile < num_tiles; ++tile, ++count) {
    uint32_t const stage = count % kStages, parity = count / kStages & 1;
    float scores[kScores], own[kThreadRows], sums[kThreadRows];
    multiply_qk<Element>(scores, s, stage, parity, place.buffer, me.side);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(scores);
    if (tile + 1 == num_tiles) arrive_warp(s.q_free[place.buffer], me.lane);
    exchange(own, scores, s, me);
    int32_t const valid = s.valid[stage], first = (part.first_tile + tile) * kTileTokens;
    if (valid < kTileTokens) zero_tail(s, stage, valid);
    if (min(state.least_visible - first, valid) < kTileTokens) {
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i)
        if (me.token() >= min(state.visible[i] - first, valid)) own[i] = -INFINITY;
    }
    bool moves = tile == 0;
    if (!moves) {
      bool exceeds = false;
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) exceeds = exceeds || own[i] * scale_log2 > state.max[i] + kLazyMaximum;
      exponentials<Element>(sums, state, own, p, scale_log2);
      moves = __any_sync(0xffffffffU, ptx::named_barrier_any(kOutputBarrier, kOutputThreads, exceeds));
    }
    if (moves) {
      move_maximum(state, own, s, scale_log2, tile == 0, me);
      exponentials<Element>(sums, state, own, p, scale_log2);
      ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
    }
    begin_pv<Element>(state, s, stage, me.side);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) state.sum[i] += sums[i];
    if (tile + 1 == num_tiles) add_up_sums(state, s, me);
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int block = 0; block < kSideBoxes; ++block) ptx::pin_registers(state.o[block]);
    arrive_warp(s.empty[stage], me.lane);
  }
  if (num_tiles == 0) arrive_warp(s.q_free[place.buffer], me.lane);
}

}  // namespace flashmla::cuda::dense_decode::transposed
