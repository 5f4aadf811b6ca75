// The output warpgroups of scored/kernel.cuh: O += P V, each for its half of the columns, and the end of each part.
#pragma once

#include "cuda/kernels/dense_decode_epilogue.cuh"
#include "cuda/kernels/dense_decode_producer.cuh"
#include "cuda/kernels/scored/feed.cuh"

namespace flashmla::cuda::dense_decode::scored {

struct Output {
  int32_t side;    // 0: columns 0 .. 255; 1: the others
  int32_t thread;  // in the warpgroup
  int32_t lane;
};

/// Divides O by 2^shift.
__device__ __forceinline__ void divide(float (&o)[kOutputs<kLatent>], int32_t const (&shift)[2]) {
  float const factor[2] = {shift_factor(shift[0]), shift_factor(shift[1])};
#pragma unroll
  for (int i = 0; i < kOutputs<kLatent>; ++i) o[i] *= factor[i / 2 % 2];
}

/// V rows past the end, or of a page that does not exist, may hold NaN; 0 * NaN poisons O, so they become zeros.
template <Paging kPaging>
__device__ __forceinline__ void zero_tail(Shared& s, uint32_t slot, int32_t valid, Output const& me) {
  using Layout = StageLayout<kPaging, kLatent>;
  uint32_t const side = ptx::shared_address(s.kv[slot][me.side * kSideBoxes]) + me.thread % 8 * 16;
  for (int32_t row = me.thread / 8; row < kTileTokens; row += kWarpgroupThreads / 8) {
    if (row < valid) continue;
#pragma unroll
    for (int box = 0; box < kSideBoxes; ++box)
      ptx::store_shared_16(side + row / 8 * Layout::kNextAtom + row % 8 * kSwizzleRowBytes + box * Layout::kNextBox, 0, 0, 0, 0);
  }
  ptx::fence_proxy_async_shared();
  ptx::named_barrier_sync(kSideBarrier + me.side, kWarpgroupThreads);
}

/// Lets the QK of the next tile run first where its keys have landed: the softmax after it then hides behind this PV. Only an order of
/// events; nothing depends on it.
__device__ __forceinline__ void let_next_qk_run(Shared& s, RingPosition next) {
  next.advance();
  if (ptx::mbarrier_test(s.full[next.slot][1], next.parity)) ptx::mbarrier_wait(s.qk_done[next.slot], next.parity);
}

/// Starts O += P V, once P is there.
template <class Element, Paging kPaging>
__device__ __forceinline__ void begin_pv(float (&o)[kOutputs<kLatent>], Shared& s, RingPosition const& at, bool has_next,
                                         Output const& me) {
  ptx::mbarrier_wait(s.p_ready[at.slot], at.parity);
  if (uniform(s.has_moved[at.slot][me.thread / 32]) != 0) {
    int32_t const shift[2] = {s.shift[at.slot][fragment_row(me.thread, 0)], s.shift[at.slot][fragment_row(me.thread, 1)]};
    divide(o, shift);
  }
  int32_t const valid = s.tokens[at.slot].valid;
  if (valid < kTileTokens) zero_tail<kPaging>(s, at.slot, valid, me);
  if (has_next) let_next_qk_run(s, at);
  uint64_t const p = k_major_descriptor(ptx::shared_address(s.kv[at.slot][kRopeBox]));
  using Layout = StageLayout<kPaging, kLatent>;
  uint64_t const v = n_major_descriptor(ptx::shared_address(s.kv[at.slot][me.side * kSideBoxes]), Layout::kNextBox, Layout::kNextAtom);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ptx::wgmma_m64n256k16_ss<Element>(o, advance(p, step * kKMajorStepBytes), advance(v, step * 2 * Layout::kNextAtom), true);
  ptx::wgmma_commit();
}

__device__ __forceinline__ void end_pv(float (&o)[kOutputs<kLatent>]) {
  ptx::wgmma_wait<0>();
  ptx::pin_registers(o);
}

/// Of the left side's boxes, and of the right side's and P.
__device__ __forceinline__ void let_go(Shared& s, uint32_t slot, Output const& me) {
  __syncwarp();
  if (me.lane != 0) return;
  if (me.side == 0) ptx::mbarrier_arrive(s.empty[slot][0]);
  ptx::mbarrier_arrive(s.empty[slot][1]);
}

/// Tells all roles what comes next: a part, or that there are no more. Its place must be free. The first warp.
template <Calls kCalls, class Walk>
__device__ __forceinline__ void announce(Shared& s, DenseDecodeParams const& params, Walk& walk, uint32_t part_index) {
  Part part;
  if (!walk.next(part)) part.rows.request = -1, part.num_tiles = 0;
  part.keeps_q = false;
  if (is_chunked<kCalls>(params) && part_index > 0) {
    Part const& before = s.parts[(part_index - 1) % 2];
    part.keeps_q = part.rows.request == before.rows.request && part.rows.row_begin == before.rows.row_begin &&
                   part.rows.kv_head == before.rows.kv_head && before.num_tiles > 0;
  }
  if (threadIdx.x == 0) {
    s.parts[part_index % 2] = part;
    ptx::mbarrier_arrive(s.announced);
    if (part.rows.request >= 0) {
      int32_t const length = params.call.kv_len[part.rows.request];
      if (length != core::clamp_length(length, params.start.length_limit))
        keep_fault(params.workspace, FLASHMLA_FAULT_KV_LEN, part.rows.request, 0, length);
    }
  }
  __syncwarp();
}

/// m and l of the thread's rows, from the score warpgroup.
__device__ __forceinline__ void take_stats(RowState<kLatent>& row, Shared& s, uint32_t part_index, Output const& me) {
  ptx::mbarrier_wait(s.stats_ready, part_index & 1);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    row.max[half] = s.row_max[fragment_row(me.thread, half)];
    row.sum[half] = s.row_sum[fragment_row(me.thread, half)];
  }
  arrive_warp(s.stats_free, me.lane);
}

/// Merges what this CTA owes to items that it shares with others, once all their parts are there.
template <Calls kCalls>
__device__ __forceinline__ void merge_items(Shared& s, DenseDecodeParams const& params, SharedItem const (&items)[2], uint32_t events) {
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    if (threadIdx.x == 0) {
      bool const is_complete = wait_for_parts(params, items[event]);
      s.can_merge[event] = is_complete && !is_taken(params, items[event]) ? 1U : 0U;
      ptx::mbarrier_arrive(s.mergeable[event]);
      leave_item(params, items[event]);
    }
    merge_item<kCalls, kLatent>(reinterpret_cast<MergeMemory&>(s.kv), params, items[event], {s.mergeable[event], s.can_merge[event]},
                                s.merges_all[event]);
  }
}

template <class Element, Paging kPaging, Calls kCalls, class Walk>
__device__ __forceinline__ void output(Shared& s, Sources const& from, Walk& walk, int32_t side) {
  DenseDecodeParams const& params = from.params;
  Output const me{side, static_cast<int32_t>(threadIdx.x % kWarpgroupThreads), static_cast<int32_t>(threadIdx.x % 32)};
  int32_t const warp = uniform(threadIdx.x / 32);
  bool const is_loader = warp % 4 == 0, is_announcer = warp == 0;
  Feed feed{side};
  RingPosition at;
  SharedItem items[2];
  uint32_t events = 0;
  if (is_announcer) announce<kCalls>(s, params, walk, 0);
  for (uint32_t part_index = 0;; ++part_index) {
    ptx::named_barrier_sync(kOutputsBarrier, kOutputThreads);  // the part is known, and the one before has ended
    Part const& part = s.parts[part_index % 2];
    if (uniform(part.rows.request) == ~0U) break;
    int32_t const num_tiles = uniform(part.num_tiles);
    RowState<kLatent> row;
#pragma unroll
    for (int i = 0; i < kOutputs<kLatent>; ++i) row.o[i] = 0.0F;
#pragma unroll 1
    for (int32_t tile = num_tiles == 0 || uniform(part.keeps_q) != 0 ? 0 : -1; tile < num_tiles; ++tile) {  // -1: Q
      if (is_loader && feed.free > 0) fill<kPaging>(s, from, feed, at, part_index, tile > 0);
      TileCopy next;
      if (tile < 0) {
        ptx::mbarrier_wait(s.p_ready[at.slot], at.parity);
      } else {
        begin_pv<Element, kPaging>(row.o, s, at, tile + 1 < num_tiles, me);
        if (is_loader) next = prepare<kPaging>(s, from, feed);
        end_pv(row.o);
      }
      if (tile + 1 == num_tiles) break;  // the last one's stage serves for the rows' way to out
      let_go(s, at.slot, me);
      if (is_loader) {
        ptx::mbarrier_wait(s.empty[at.slot][side], at.parity);
        refill<kPaging>(s, from, feed, next, at.slot);
      }
      if (tile == 0 && is_announcer) announce<kCalls>(s, params, walk, part_index + 1);
      at.advance();
    }
    take_stats(row, s, part_index, me);
    if (num_tiles <= 1 && is_announcer) announce<kCalls>(s, params, walk, part_index + 1);
    bool const may_take = part_index > 0 && part.is_first_of_two() && !is_chunked<kCalls>(params);
    bool const is_shared = !part.is_whole() && !is_chunked<kCalls>(params);
    if (is_shared) items[events] = {part.rows, part.split, part.num_splits};
    if (may_take && threadIdx.x == 0) {
      SharedItem item = items[events];
      s.parts[part_index % 2].takes_item = take_item(params, item);
    }
    ptx::named_barrier_sync(kOutputsBarrier, kOutputThreads);  // nobody multiplies the last tile any more
    bool const takes_item = may_take && part.takes_item;
    uint32_t const staging = ptx::shared_address(s.kv[at.slot][side * kSideBoxes]);
    write_part<kCalls>(row, params, part, takes_item, {side, me.thread, me.lane, staging, 0});
    if (is_shared && !takes_item) {
      ptx::named_barrier_sync(kOutputsBarrier, kOutputThreads);  // all of the part is stored
      if (threadIdx.x == kOutputThreads - 1) s.merges_all[events] = arrive_at_item(params, items[events]) ? 1U : 0U;
      ++events;
    }
    ptx::fence_proxy_async_shared();  // what was staged before TMA writes there again
    if (num_tiles == 0) continue;
    let_go(s, at.slot, me);
    if (is_loader) ptx::mbarrier_wait(s.empty[at.slot][side], at.parity), ++feed.free;
    at.advance();
  }
  merge_items<kCalls>(s, params, items, events);
}

}  // namespace flashmla::cuda::dense_decode::scored
