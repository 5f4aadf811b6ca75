// Dense MLA decode on Hopper: 64 rows (query token, head) by 64-token tiles, both products on wgmma.
//
// Math. For the 64 rows of this CTA and tile t of 64 tokens (src/reference/decode.cpp is the definition):
//   S_t = Q K_t^T;  m_t = m_{t-1}, or rowmax(c S_t) where that is more than 8 larger (c = scale * log2 e);
//   P_t = 2^(c S_t - m_t);  O <- 2^(m_{t-1} - m_t) O + P_t V_t;  l <- 2^(m_{t-1} - m_t) l + rowsum(P_t)
//   out = O / l, lse = m + log2 l. V_t is the latent columns of K_t, its first 512: one copy in shared memory serves both products.
//   A lazy maximum (P up to 2^8) leaves O alone in nearly every tile and loses nothing: P keeps its relative precision.
//   Caches of 256 latent columns are served by instances of their own (kLatent); what this page says is of 512, and of 256 where it says so.
//
// Roles. Warpgroup 0 (left) and 1 (right) each hold a 64 x 256 half of O in registers (128 a thread). Tile t of a part
//   belongs to warpgroup t % 2: it computes S_t and P_t, and gives P_t and m_t to the other, since every half of O needs
//   every P. Warp 8 (producer) walks the parts, announces them and keeps two tiles of KV in flight. Warps 9 and 10 publish
//   partial results, and wait for the other parts of their items, which the consumers then merge. Where pages are not whole
//   tiles, warps 8 to 11 walk the parts, and each brings a quarter of every tile (dense_decode_copies.cuh); else warp 11 idles.
//
// Ends. Whole items go to out. Parts of others: dense_decode_partials.cuh, or where two CTAs have but one item between them
//   dense_decode_exchange.cuh.
//
// Timeline (own tiles of the left warpgroup are even; `|` is a wait for the other):
//   left : QK(0) softmax(0) PV(0)l               | PV(1)l QK(2) softmax(2) PV(2)l | ...
//   right:                         | PV(0)r QK(1) softmax(1) PV(1)r | PV(2)r QK(3) ...
//   producer: tile t + 2 goes out region by region as tile t's left half, right half and RoPE are let go.
//   Staggered parts (takes_keys_first), where arithmetic is the limit and tiles come in time:
//   left : QK(0) softmax(0) PV(0)l      | PV(1)l QK(2) softmax(2) ...
//   right:       QK(1)           | PV(0)r under softmax(1) PV(1)r QK(3) ...
//
// Shared memory (bytes; everything 1,024-aligned, rows of 128 bytes swizzled):
//   q    8 x 8,192   =  65,536   latent columns of Q; its RoPE columns live in registers as A fragments
//   kv   2 x 9 x 8,192 = 147,456 two stages of 64 tokens x 576: boxes of 64 columns, the ninth is RoPE
//   p    2 x 8,192   =  16,384   P of each warpgroup's current tile
//   rest              =   1,968  row maxima and sums, parts, shared items, valid tokens, holes, barriers, items taken
//   total 231,344, padded to 231,424 of 232,448; the merge works where KV was
//   Of 256 latent columns: q's boxes 0 .. 3; of a stage boxes 0 and 1 (left half), 2 and 3 (right) and 4 (RoPE); the rest is unused.
//   RoPE of 32 columns: the second half of its box is zeros, as are Q's fragments for it.
//
// Barriers (phase = use count of the stage or of the publication, parity):
//   full[stage][copy]      loaders -> owner of the tile: two boxes, or RoPE, have landed (16,384 / 8,192 bytes; of 256 columns one
//                          box, 8,192). TMA: an arrival a loader, with expect_tx; a half is one copy where pages are not whole
//                          tiles. cp.async: one a thread.
//   empty[stage][region]   4 warps -> loaders: left (PV left done), right (PV right done), rope (QK done; said once PV runs). P is
//                          published after its QK, so a finished PV half implies that QK has let go of that half as well.
//   p_ready[warpgroup]     4 warps -> the other warpgroup: P, m if it may have moved, and zeroed tails of the tile are in shared memory
//   p_free[warpgroup]      4 warps of the other -> owner: its P has been consumed
//   stored[event]          8 warps -> warp 9 + event: a partial result is stored; of the second also: there are no more (once)
//   mergeable[event]       warp 9 + event -> both warpgroups: all parts of the item are in memory, or others merge (once)
//   announced              producer -> both warpgroups: `parts` has the next part, or the end (phase = part)
//   q_full                 producer's expect_tx -> both warpgroups: the part's Q has landed (65,536 bytes, or 32,768; none where they
//                          load it, or where a chunk finds it in place)
//   q_free                 8 warps -> producer: the part's last QK is done, the next part's Q may come (phase = part); a chunk of the same
//                          rows may be announced earlier (`follows`)
//
// Registers. 384 threads start with 168; consumers take 224, the others 56. O 128, S 32, P 16, RoPE of Q 16. Of 256 latent columns O
//   is 64: consumers take 200, the others 104, and nothing spills.
//
// Limits. Bases and strides of the cache are multiples of 16 bytes.
#pragma once

#include "cuda/kernels/dense_decode_consumer.cuh"
#include "cuda/kernels/dense_decode_epilogue.cuh"
#include "cuda/kernels/dense_decode_producer.cuh"
#include "cuda/kernels/dense_decode_state.cuh"

namespace flashmla::cuda::dense_decode {

template <class Element, Paging kPaging, Calls kCalls, int kLatent>
__device__ __forceinline__ void consume(Shared& s, DenseDecodeParams const& params, int32_t warpgroup) {
  Consumer me{warpgroup, static_cast<int32_t>(threadIdx.x % kWarpgroupThreads), static_cast<int32_t>(threadIdx.x % 32), 0, 0, 0};
  ptx::grid_dependency_wait();
  for (uint32_t part_index = 0;; ++part_index) {
    ptx::mbarrier_wait(s.announced, part_index & 1);
    Part const& part = s.parts[part_index % 2];
    if (part.rows.request < 0) break;
    uint32_t rope[4][4];
    load_q_rope<kLatent>(rope, params, part, me.thread);
    RowState<kLatent> row;
#pragma unroll
    for (int i = 0; i < kOutputs<kLatent>; ++i) row.o[i] = 0.0F;
    row.max[0] = row.max[1] = -INFINITY;
    row.sum[0] = row.sum[1] = 0.0F;
    read_visible(row.visible, params, part, me.thread, [&](int32_t token, int32_t found) {
      record_fault(params.workspace, FLASHMLA_FAULT_VISIBLE_LEN, part.rows.request, token, found);
    });
    ptx::mbarrier_wait(s.q_full, part_index & 1);
    if (!params.q_is_tensor) load_q_latent<kLatent>(s, params, part);
    attend<Element, kPaging, kCalls>(row, s, params, part, rope, me);
    me.tiles += part.num_tiles;
    float(&shares)[2][kCtaRows] = s.row_sum[part_index % 2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 1);
      row.sum[half] += __shfl_xor_sync(0xffffffffU, row.sum[half], 2);
      if (me.lane % 4 == 0) shares[me.warpgroup][fragment_row(me.thread, half)] = row.sum[half];
    }
    bool const may_take = kCalls != Calls::kFew && part_index > 0 && part.is_first_of_two() && !is_chunked<kCalls>(params);
    if (may_take && threadIdx.x == 0) s.takes_item[part_index % 2] = take_item(params, s.items[me.events()]) ? 1U : 0U;
    ptx::named_barrier_sync(kConsumersBarrier, kConsumerThreads);  // both shares of l are there
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int32_t const local = fragment_row(me.thread, half);
      row.sum[half] = shares[0][local] + shares[1][local];
    }
    prefetch_q_rope(s, params, part_index + 1, me.thread);
    bool const takes_item = may_take && s.takes_item[part_index % 2] != 0;
    write_part<kCalls>(row, params, part, takes_item,
                       {me.warpgroup, me.thread, me.lane, ptx::shared_address(s.p[me.warpgroup]), ptx::shared_address(s.kv)});
    if (part.is_whole() || is_chunked<kCalls>(params) || (kCalls == Calls::kFew && part.is_exchanged)) continue;
    arrive_warp(s.stored[me.events()], me.lane);
    me.tiles += Consumer::kEvent;
  }
  uint32_t const events = me.events();
  for (uint32_t event = events; event < 2; ++event) arrive_warp(s.stored[event], me.lane);
  // Both warpgroups have multiplied the last tile: the KV stages are free.
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    if (kCalls != Calls::kFew && s.items[event].num_splits == 0) continue;  // written already
    merge_item<kCalls, kLatent>(reinterpret_cast<MergeMemory&>(s.kv), params, s.items[event], {s.mergeable[event], s.can_merge[event]},
                                s.merges_all[event]);
  }
}

/// A lane a barrier. A copy is one arrival of each warp, or thread, that makes it.
template <Paging kPaging>
__device__ __forceinline__ void initialise_barriers(Shared& s, int32_t lane) {
  if (lane < kStages * kCopies)
    ptx::mbarrier_init(s.full[lane / kCopies][lane % kCopies], kPaging == Paging::kRows ? 32 * kLoaders<kPaging> : kLoaders<kPaging>);
  if (lane < kStages * 3) ptx::mbarrier_init(s.empty[lane / 3][lane % 3], 4);
  if (lane < 8) s.has_moved[lane / 4][lane % 4] = 0;
  if (lane < 2) {
    ptx::mbarrier_init(s.p_ready[lane], 4);
    ptx::mbarrier_init(s.p_free[lane], 4);
    ptx::mbarrier_init(s.mergeable[lane], 1);
    ptx::mbarrier_init(s.stored[lane], 8);
  }
  if (lane == 0) {
    ptx::mbarrier_init(s.q_full, 1), ptx::mbarrier_init(s.q_free, 8), ptx::mbarrier_init(s.announced, 1);
  }
  ptx::fence_mbarrier_init();
}

template <class Element, Paging kPaging, Calls kCalls, int kLatent>
__global__ void __launch_bounds__(kThreads, 1)
    dense_decode_kernel(TensorMaps const __grid_constant__ maps, DenseDecodeParams const __grid_constant__ params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x < 32) initialise_barriers<kPaging>(s, threadIdx.x);
  if (threadIdx.x == kConsumerThreads)
    ptx::prefetch_tensor_map(&maps.latent), ptx::prefetch_tensor_map(&maps.rope), ptx::prefetch_tensor_map(&maps.q);
  __syncthreads();
  // Through a shuffle, so that the compiler knows it to be uniform: wgmma must not stand in divergent code.
  int32_t const warpgroup = __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x / kWarpgroupThreads), 0);
  if (warpgroup == 2) {
    ptx::register_decrease<kProducerRegisters<kLatent>>();
    int32_t const warp = uniform(threadIdx.x / 32) - kConsumerThreads / 32;
    bool has_published = false;
    if (warp < kLoaders<kPaging>) {
      CtaWork const work = read_work(params.start);
      if (!work.fits && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == kConsumerThreads)
        record_fault(params.workspace, FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, work.batch);
      Sources const from{maps, params, ptx::kEvictFirst};
      if constexpr (kCalls != Calls::kAny) {
        core::UniformRowTiles const row_tiles{params.start.num_row_tiles};
        has_published = produce<kPaging, kCalls, kLatent>(
            s, from, CtaWalk(params.start, work.begin, work.end, row_tiles, kCalls == Calls::kFew && work.are_pairs), warp);
      } else {
        CtaWalk const walk(params.start, work.begin, work.end, RaggedCallTiles{&params}, false);
        has_published = params.start.is_chunked ? produce<kPaging, kCalls, kLatent>(s, from, ChunkWalk(params, walk), warp)
                                                : produce<kPaging, kCalls, kLatent>(s, from, walk, warp);
        if (params.start.is_ragged() && warp == 0 && blockIdx.x == 0) check_ragged_requests(params);
      }
    }
    int32_t const event = warp - kFirstPublisher;
    if ((event == 0 || event == 1) && threadIdx.x % 32 == 0) gather_item<kCalls>(s, params, event, has_published);
  } else {
    ptx::register_increase<kConsumerRegisters<kLatent>>();
    consume<Element, kPaging, kCalls, kLatent>(s, params, warpgroup);
  }
}

}  // namespace flashmla::cuda::dense_decode
