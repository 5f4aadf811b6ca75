// Dense MLA decode on Hopper for up to 16 rows (query token, head) a KV head in short, ragged and batch-invariant calls, and a few more in row
// tiles of 16: keys, then latent columns, are the 64 rows of wgmma, and rows of the call its 16 columns.
//
// Math. That of dense_decode.cuh, transposed: S^T = K Q^T, O^T = V^T P^T.
//
// Roles. Warps 0 to 7 (two warpgroups, left and right) share every tile: of QK each warpgroup takes half of the 576 columns, of softmax each
//   thread a token of four rows, of PV each warpgroup half of the latent columns, 64 x 16 x 4 a warpgroup. Warps 8 to 10 walk the parts: 8
//   and 9 bring the left and the right side of every tile (the right one with RoPE), 10 announces parts and brings Q, and counts what
//   the CTA has stored; at the end 8 and 9 clear the cells that the CTA has merged.
//
// Ends. Whole items go to out, chunks of batch-invariant calls to the partial results of dense_decode_partials.cuh, other parts to cells
//   (cells.cuh), which all CTAs of an item then merge.
//
// Timeline of a tile, of 64 tokens (`|` is a barrier of the eight warps):
//   QK of a side | exchange of halves of S, mask | P by the m so far, did m move? | PV of a side
//   where m moves, as in a part's first tile:    | largest scores | P | PV
//   In a part's last tile l is added up while PV runs.
//
// Why. For 16 rows, products of 64 rows leave two of eight warps all that is real, and a tile is one chain of 3,330 cycles. Here it is
//   36 + 32 m64n16k16, which take 22 cycles each whoever issues them, as A comes from shared memory: 1,500 cycles, and some 900 between.
//
// Shared memory (bytes):
//   kv  2 x 9 x 8,192 = 147,456   two stages of 64 tokens x 576, boxes of 64 columns; the ninth is RoPE
//   q   2 x 9 x 2,048 =  36,864   of this part and the next: 16 rows a box
//   p                 =   2,048   [row][token]
//   exchanged         =   4,096   halves of S
//   staged            =  16,640   rows on their way to out, or a chunk's to the workspace
//   merge             =   2,560   sums on their way from warp to warp
//   rest              =   2,304   largest scores and shares of l, parts, items, barriers
//
// Barriers (phase = use count of the stage or place, parity):
//   full[stage][copy]   TMA -> left (its boxes, RoPE), right (its boxes, RoPE): 32,768 or 8,192 bytes
//   empty[stage]        8 warps -> warps 8, 9: PV is done
//   announced[place]    warp 10 -> 8 warps: parts[place] is the next part, or says that there are no more
//   part_free[place]    8 warps -> warp 10: the part is done with
//   q_full[place]       TMA (18,432 bytes) -> 8 warps
//   q_free[place]       8 warps -> warp 10: the part's last QK is done
//   stored[event]       8 warps -> warp 10: a part's cells are on their way to memory
//   counted[event]      warp 10 -> 8 warps: the part has been counted, and whether others have given up is known
//   merged[event]       8 warps -> warps 8 to 10: all of the CTA's slice has been read
//   closed              warp 10 -> warps 8, 9: all parts are announced
//
// Registers. 352 threads have up to 168 each; O 32, S 8.
//
// Limits. Whole-tile pages, 512 latent columns; bases and strides of the cache are multiples of 16 bytes.
#pragma once

#include "cuda/kernels/transposed/ends.cuh"
#include "cuda/kernels/transposed/feed.cuh"
#include "cuda/kernels/transposed/products.cuh"

namespace flashmla::cuda::dense_decode::transposed {

/// Q where no tensor map describes it (rows unevenly spaced or unaligned); rows past the last are zeros.
__device__ __forceinline__ void copy_q(Shared& s, DenseDecodeParams const& params, Part const& part, uint32_t buffer) {
  constexpr int kChunks = (kLatent + 64) / 8;  // of a row, 16 bytes each
  int32_t const rows = part.rows.num_rows - part.rows.row_begin;
#pragma unroll 1
  for (int32_t i = threadIdx.x; i < kRows * kChunks; i += kOutputThreads) {
    int32_t const row = i / kChunks, chunk = i % kChunks;
    bool const is_rope = chunk >= kLatent / 8;
    uint32_t const target = ptx::shared_address(s.q[buffer][chunk / 8]) + swizzled_offset(row, chunk % 8);
    RowTarget const from = row_target(params, part.rows, part.rows.row_begin + (row < rows ? row : 0));
    auto const* const base = static_cast<uint16_t const*>(is_rope ? params.call.q_pe : params.call.q_nope);
    core::RowStrides const& stride = is_rope ? params.call.q_pe_stride : params.call.q_nope_stride;
    uint16_t const* const source = base + row_offset(stride, part.rows, from) + (is_rope ? chunk - kLatent / 8 : chunk) * 8;
    copy_q_chunk(target, source, row < rows, params);
  }
  ptx::cp_async_wait_all();
  ptx::fence_proxy_async_shared();
  ptx::named_barrier_sync(kOutputBarrier, kOutputThreads);
}

/// Keys that the thread's rows see. A visible_len outside [0, kv_len] is clamped and recorded.
__device__ __forceinline__ void read_visible(State& state, DenseDecodeParams const& params, Part const& part, Multiplier const& me) {
  core::QueryBounds const bounds = params.call.query_bounds();
  int32_t const q_tokens = token_of(params, part.rows.num_rows);
  int32_t const* const view = visible_lengths(params, bounds, part.rows, q_tokens);
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    int32_t const token = token_of(params, part.rows.row_begin + me.row(i));
    state.visible[i] = part.kv_len;
    if (token >= q_tokens) continue;
    state.visible[i] = core::num_visible(part.kv_len, q_tokens, token, params.causal != 0, view);
    if (view != nullptr && view[token] != state.visible[i])
      record_fault(params.workspace, FLASHMLA_FAULT_VISIBLE_LEN, part.rows.request, token, view[token]);
  }
  state.least_visible = min(min(state.visible[0], state.visible[1]), min(state.visible[2], state.visible[3]));
}

__device__ __forceinline__ void initialise_barriers(Shared& s, int32_t lane) {
  if (lane < kStages) {
    for (int copy = 0; copy < 3; ++copy) ptx::mbarrier_init(s.full[lane][copy], 1);
    ptx::mbarrier_init(s.empty[lane], kOutputWarps);
  }
  if (lane < 2) {
    ptx::mbarrier_init(s.announced[lane], 1), ptx::mbarrier_init(s.part_free[lane], kOutputWarps);
    ptx::mbarrier_init(s.q_full[lane], 1), ptx::mbarrier_init(s.q_free[lane], kOutputWarps);
    ptx::mbarrier_init(s.stored[lane], kOutputWarps);
    ptx::mbarrier_init(s.counted[lane], 1);
    ptx::mbarrier_init(s.merged[lane], kOutputWarps);
  }
  if (lane == 0) ptx::mbarrier_init(s.closed, 1);
  ptx::fence_mbarrier_init();
}

/// A multiplying warp's work.
template <class Element, Calls kCalls>
__device__ __forceinline__ void work(Shared& s, DenseDecodeParams const& params, int32_t side) {
  Multiplier const me{side, static_cast<int32_t>(threadIdx.x % kWarpgroupThreads), static_cast<int32_t>(threadIdx.x % 32),
                      static_cast<int32_t>(threadIdx.x / 32)};
  uint32_t events = 0, count = 0;
  MergePlace merge;  // of the latest part that is shared
#pragma unroll 1
  for (uint32_t number = 0;; ++number) {
    uint32_t const place = number % 2, parity = number / 2 & 1;
    ptx::mbarrier_wait(s.announced[place], parity);
    Part const& part = s.parts[place];
    if (uniform(part.rows.request) == ~0U) break;
    State state;
#pragma unroll
    for (int block = 0; block < kSideBoxes; ++block)
#pragma unroll
      for (int i = 0; i < kScores; ++i) state.o[block][i] = 0.0F;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) state.max[i] = -INFINITY, state.sum[i] = 0.0F;
    read_visible(state, params, part, me);
    int32_t const rows = min(kRows, part.rows.num_rows - part.rows.row_begin);
    CellPlace const cells(params, part.split, me);
    bool const is_shared = !part.is_whole() && !is_chunked<kCalls>(params);
    if (is_shared) merge = merge_begin(params, {part.rows, part.split, part.num_splits}, part.split);
    ptx::mbarrier_wait(s.q_full[place], parity);
    if (!params.q_is_tensor) copy_q(s, params, part, place);
    attend<Element>(state, s, params, part, {place, count}, me);
    count += uniform(part.num_tiles);
    if (part.is_whole()) {
      write_item(state, s, params, part, rows, me);
    } else if (is_chunked<kCalls>(params)) {
      write_chunk(state, s, params, part, rows, me);
    } else {
      write_cells(state, cells, rows, me);
      arrive_warp(s.stored[events++], me.lane);
    }
    arrive_warp(s.part_free[place], me.lane);
  }
#pragma unroll 1
  for (uint32_t event = 0; event < events; ++event) {
    merge_item(s, params, event, event + 1 < events ? merge_begin(params, s.items[event], s.items[event].split) : merge, me);
  }
}

template <class Element, Calls kCalls>
__global__ void __launch_bounds__(kThreads, 1)
    transposed_decode_kernel(TensorMaps const __grid_constant__ maps, DenseDecodeParams const __grid_constant__ params) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  // Through a shuffle, so that the compiler knows it to be uniform: wgmma must not stand in divergent code.
  int32_t const warp = static_cast<int32_t>(uniform(threadIdx.x / 32));
  if (warp == 0) initialise_barriers(s, static_cast<int32_t>(threadIdx.x));
  if (threadIdx.x == kOutputThreads) {
    ptx::prefetch_tensor_map(&maps.latent), ptx::prefetch_tensor_map(&maps.rope);
    ptx::prefetch_tensor_map(&maps.q), ptx::prefetch_tensor_map(&maps.q_rope);
  }
  __syncthreads();
  if (warp < kOutputWarps) {
    ptx::grid_dependency_wait();
    work<Element, kCalls>(s, params, warp / 4);
    return;
  }
  int32_t const loader = warp - kOutputWarps;
  FirstWork const first = read_first_work<kCalls>(params.start);
  if (!first.work.fits && blockIdx.y == 0 && threadIdx.x == kOutputThreads)
    record_fault(params.workspace, FLASHMLA_FAULT_SCHEDULE_MISMATCH, 0, 0, first.work.batch);
  Sources const from{maps, params};
  if constexpr (kCalls != Calls::kAny) {
    CtaWalk walk(params.start, first.work.begin, first.work.end, FewRowTiles(params.start.num_row_tiles), false);
    load<kCalls>(s, from, walk, first, loader);
  } else {
    AnyWalk walk(params, CtaWalk(params.start, first.work.begin, first.work.end, RaggedCallTiles{&params}, false));
    load<kCalls>(s, from, walk, first, loader);
    if (params.start.is_ragged() && loader == 1) check_ragged_requests(params);
  }
  if (loader < kLoaders - 1) {
    ptx::mbarrier_wait(s.closed, 0);
    clear_slices(s, params);
  } else if (threadIdx.x % 32 == 0) {
    count_parts(s, params);
  }
}

}  // namespace flashmla::cuda::dense_decode::transposed
