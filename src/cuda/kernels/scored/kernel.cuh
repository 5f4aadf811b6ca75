// Dense MLA decode on Hopper with a score warpgroup: 64 rows (query token, head) by 64-token tiles, for long calls of more rows than 64.
//
// Math. That of dense_decode.cuh, but m moves by whole numbers (log2 units), so that O and l are divided by powers of two.
//
// Roles. Warpgroup 2 scores: it holds Q in registers, and does QK, mask, softmax of every tile. Warpgroups 0 (left) and 1 (right) hold a
//   64 x 256 half of O each, 128 registers a thread, and do PV. Warp 0 walks the parts and announces them; warps 0 and 4 bring the left and
//   the right side of what the CTA reads (feed.cuh). Ends of parts are those of dense_decode.cuh.
//
// Timeline (a PV waits for the QK of the next tile, where its keys are there, so that the softmax behind that hides the PV):
//   score  : QK(0) softmax(0) QK(1) softmax(1) QK(2) softmax(2) ...
//   left   :                        PV(0)l           PV(1)l
//   right  :                        PV(0)r           PV(1)r
//
// Why. Of 64 x 64 scores a wgmma of 32 cycles reads 2 KB of each operand from shared memory, which moves 128 bytes a cycle: with Q in
//   shared memory QK is bound by that, and by TMA's writes. Cycles of shared memory a tile: QK 5 x 32 + 31 x 16, PV 640, TMA 576, P 64:
//   1,936, where the tensor cores take 2,176; with Q in shared memory 2,304. And Q's place goes to a third stage. See docs/kernels.
//
// Shared memory (bytes):
//   kv   3 x 9 x 8,192 = 221,184   three stages of 64 tokens x 576, boxes of 64 columns; the ninth is RoPE, and P once QK is done with it
//   q    5 x 2,048     =  10,240   Q of the first five k-steps, without swizzle
//   rest               =   1,024   row maxima and sums, parts, shifts, tokens, barriers; 232,448 to the byte
//   Of a tile of several pages a side is 8 groups of 8 tokens x 4 boxes (StageLayout); RoPE, P and Q lie as they do otherwise.
//   The rows of a part pass through its last tile's stage on their way to out; the merge works where KV was.
//
// Barriers (phase = use count of the stage, or of the part; parity):
//   full[stage][side]   TMA -> score: boxes 0 .. 3; 4 .. 7 and RoPE (32,768 / 40,960 bytes). Of Q: none; 73,728.
//   empty[stage][side]  left: 4 warps -> warp 0; right: 8 warps, as P lies there -> warp 4
//   qk_done[stage]      4 score warps -> themselves: nobody reads the RoPE box any more, or of Q: all of s.q is there; and -> output, see
//                       the timeline
//   p_ready[stage]      4 score warps -> output: P and the shifts are there; of Q: it is in registers
//   announced           warp 0 -> score, warp 4: `parts` has the next part, or the end (phase = part). Part p + 1 is announced after the first
//                       PV of part p, or its stats: score has seen part p then, and nobody needs part p - 1.
//   stats_ready         4 score warps -> output: m and l of the part's rows
//   stats_free          8 output warps -> score
//   mergeable[event]    thread 0 -> output: all parts of the item are in memory, or others merge (once)
//
// Registers. 384 threads start with 168; the score warpgroup takes 184 (Q 124, S 32), the others 160 (O 128). ptxas refuses
//   m64n256k16 below 154, and Q in a k-step more serialises wgmma: both splits are the only ones that fit.
//
// Limits. Whole-tile pages, or with one KV head pages of 16 or 32 tokens; 512 latent columns; calls that are not short; bases and strides of
//   the cache are multiples of 16 bytes.
#pragma once

#include "cuda/kernels/scored/output.cuh"
#include "cuda/kernels/scored/scores.cuh"

namespace flashmla::cuda::dense_decode::scored {

/// A lane a barrier.
__device__ __forceinline__ void initialise_barriers(Shared& s, int32_t lane) {
  if (lane < kStages) {
    for (int side = 0; side < 2; ++side) ptx::mbarrier_init(s.full[lane][side], 1);
    ptx::mbarrier_init(s.empty[lane][0], 4), ptx::mbarrier_init(s.empty[lane][1], 8);
    ptx::mbarrier_init(s.qk_done[lane], 4), ptx::mbarrier_init(s.p_ready[lane], 4);
  }
  if (lane < 2) ptx::mbarrier_init(s.mergeable[lane], 1);
  if (lane == 0) ptx::mbarrier_init(s.announced, 1), ptx::mbarrier_init(s.stats_ready, 4), ptx::mbarrier_init(s.stats_free, 8);
  ptx::fence_mbarrier_init();
}

template <class Element, Paging kPaging, Calls kCalls>
__global__ void __launch_bounds__(kThreads, 1)
    scored_decode_kernel(TensorMaps const __grid_constant__ maps, DenseDecodeParams const __grid_constant__ params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x < 32) initialise_barriers(s, threadIdx.x);
  if (threadIdx.x == kOutputThreads) {
    ptx::prefetch_tensor_map(&maps.latent), ptx::prefetch_tensor_map(&maps.rope);
    ptx::prefetch_tensor_map(&maps.q), ptx::prefetch_tensor_map(&maps.q_rope);
  }
  __syncthreads();
  // Through a shuffle, so that the compiler knows it to be uniform: wgmma must not stand in divergent code.
  int32_t const warpgroup = uniform(threadIdx.x / kWarpgroupThreads);
  if (warpgroup == 2) {
    ptx::register_increase<kScoreRegisters>();
    ptx::grid_dependency_wait();
    score<Element, kPaging>(s, params);
    return;
  }
  ptx::register_decrease<kOutputRegisters>();
  CtaWork work{};
  work.begin.request = work.end.request = -1;  // nothing to walk
  if (uniform(threadIdx.x / 32) == 0) {
    work = read_work(params.start);
    if (!work.fits && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
      keep_fault(params.workspace, FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, work.batch);
  } else {
    ptx::grid_dependency_wait();
  }
  Sources const from{maps, params, kv_policy<kCalls>(params)};
  if constexpr (kCalls == Calls::kMany) {
    CtaWalk walk(params.start, work.begin, work.end, core::UniformRowTiles{params.start.num_row_tiles}, false);
    output<Element, kPaging, kCalls>(s, from, walk, warpgroup);
  } else {
    AnyWalk walk(params, CtaWalk(params.start, work.begin, work.end, RaggedCallTiles{&params}, false));
    output<Element, kPaging, kCalls>(s, from, walk, warpgroup);
    if (params.start.is_ragged() && threadIdx.x < 32 && blockIdx.x == 0) check_ragged_requests(params);
  }
}

}  // namespace flashmla::cuda::dense_decode::scored
