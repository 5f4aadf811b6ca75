// The kernels of race_cases.hpp: each begins like those of src/cuda/kernels, with its barriers ready, and ends with every
// copy landed, planted fault or not, so that nothing writes to shared memory that is no longer the CTA's.
#include <cuda_bf16.h>

#include "cuda/ptx/copy.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/sync.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/tile/matrix_descriptor.hpp"
#include "gpu/race_cases.hpp"

namespace flashmla::test {
namespace {

namespace ptx = cuda::ptx;

constexpr uint32_t kTileBytes = 64 * 128;
constexpr uint32_t kOneLane = 1, kAllLanes = 32;  // of a warp that arrive
constexpr uint32_t kOnes = 0x3f803f80;            // two numbers of a tile
constexpr uint32_t kSeven = 7;
constexpr uint32_t kSixtyFour = 0x42800000;  // an element of a product of two tiles of ones, as FP32

/// What is planted.
enum class Fault { kNone, kNoBarrier, kNoFence };

struct Shared {
  alignas(1024) uint32_t a[kTileBytes / 4];  // [64, 64] BF16, swizzled
  alignas(1024) uint32_t b[kTileBytes / 4];
  uint64_t full[2];  // TMA -> readers
  uint64_t ready;    // writing warp -> reading warp
  uint64_t empty;    // readers -> TMA
};

struct Arrivals {
  uint32_t full, ready, empty;
};

__device__ __forceinline__ void begin(Shared& s, Arrivals const& arrivals) {
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(s.full[0], arrivals.full);
    ptx::mbarrier_init(s.full[1], arrivals.full);
    ptx::mbarrier_init(s.ready, arrivals.ready);
    ptx::mbarrier_init(s.empty, arrivals.empty);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
}

__device__ __forceinline__ int warp_of_thread() { return static_cast<int>(threadIdx.x) / 32; }
__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % 32; }

/// By a whole warp.
__device__ __forceinline__ void load_ones(uint32_t (&tile)[kTileBytes / 4], uint64_t& full, CUtensorMap const& ones) {
  ptx::tma_load_5d({ptx::shared_address(tile), ptx::shared_address(&full), kTileBytes}, {&ones, ptx::kEvictFirst}, {0, 0, 0, 0});
}

/// What a warp's lane finds in all rows of a tile: the bits that are set everywhere.
__device__ __forceinline__ uint32_t read_tile(uint32_t const (&tile)[kTileBytes / 4]) {
  uint32_t all = 0xffffffff;
  for (uint32_t i = 0; i < kTileBytes / 4; i += 32) all &= tile[i + lane_of_thread()];
  return all;
}

/// A [64, 64] B [64, 64]^T by a warpgroup; one element of it.
__device__ __forceinline__ uint32_t multiply_tiles(Shared& s) {
  float d[32];
  for (float& number : d) number = 0;
  uint64_t const a = cuda::k_major_descriptor(ptx::shared_address(s.a)), b = cuda::k_major_descriptor(ptx::shared_address(s.b));
  ptx::pin_registers(d);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ptx::wgmma_m64n64k16_ss<__nv_bfloat16>(d, cuda::advance(a, step * cuda::kKMajorStepBytes),
                                           cuda::advance(b, step * cuda::kKMajorStepBytes), step > 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin_registers(d);
  return __float_as_uint(d[0]);
}

template <uint32_t kArrivals>
__device__ __forceinline__ void arrive_warp(uint64_t& barrier) {
  __syncwarp();
  if (kArrivals == kAllLanes || lane_of_thread() == 0) ptx::mbarrier_arrive(barrier);
}

// (a) ordinary store -> ordinary load, bar.sync.
template <Fault kFault>
__global__ void store_load(uint32_t* out) {
  __shared__ uint32_t words[32];
  if (warp_of_thread() == 0) words[lane_of_thread()] = kSeven;
  if (kFault == Fault::kNone && warp_of_thread() < 2) ptx::named_barrier_sync(1, 64);
  if (warp_of_thread() == 1) out[lane_of_thread()] = words[31 - lane_of_thread()];
}

// The same in turns, over two buffers: every warp stores and loads, one barrier a turn.
template <Fault kFault>
__global__ void store_load_in_turns(uint32_t* out) {
  __shared__ uint32_t words[2][2][32];
  uint32_t all = 0xffffffff;
#pragma unroll 1
  for (uint32_t turn = 0; turn < 4 && warp_of_thread() < 2; ++turn) {
    if (lane_of_thread() % 4 == 0) words[turn % 2][warp_of_thread()][lane_of_thread()] = kSeven;
    if (kFault == Fault::kNone) ptx::named_barrier_sync(1, 64);
    all &= words[turn % 2][1 - warp_of_thread()][lane_of_thread() & ~3U];
  }
  if (warp_of_thread() == 1) out[lane_of_thread()] = all;
}

// The same by two warpgroups of a block of three, with barriers of each warpgroup in between, as dense_decode shares row sums.
template <Fault kFault>
__global__ void share_row_sums(uint32_t* out) {
  __shared__ uint32_t sums[2][2][64];
  uint32_t const warpgroup = threadIdx.x / 128, thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  uint32_t all = 0xffffffff;
#pragma unroll 1
  for (uint32_t turn = 0; turn < 4 && warpgroup < 2; ++turn) {
    if (turn % 2 == warpgroup) ptx::named_barrier_sync(2 + static_cast<int32_t>(warpgroup), 128);
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half)
      if (thread % 4 == 0) sums[turn % 2][warpgroup][row + half * 8] = kSeven;
    if (kFault == Fault::kNone) ptx::named_barrier_sync(1, 256);
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) all &= sums[turn % 2][0][row + half * 8] & sums[turn % 2][1][row + half * 8];
  }
  if (threadIdx.x < 32) out[threadIdx.x] = all;
}

// (b) TMA -> ordinary load, mbarrier.
template <Fault kFault>
__global__ void tma_load(CUtensorMap const __grid_constant__ ones, uint32_t* out) {
  __shared__ Shared s;
  begin(s, {1, 1, 1});
  if (warp_of_thread() == 0) {
    load_ones(s.a, s.full[0], ones);
  } else {
    if (kFault == Fault::kNone) ptx::mbarrier_wait(s.full[0], 0);
    out[lane_of_thread()] = read_tile(s.a);
  }
  ptx::mbarrier_wait(s.full[0], 0);
}

// (c) ordinary store -> wgmma, proxy fence and bar.sync. Rows are written by other warps than read them.
template <Fault kFault>
__global__ void store_wgmma(uint32_t* out) {
  __shared__ Shared s;
  uint32_t const thread = threadIdx.x, first = (127 - thread) * 16;
  for (uint32_t i = 0; i < 16; ++i) s.a[first + i] = kOnes, s.b[first + i] = kOnes;
  if (kFault != Fault::kNoFence) ptx::fence_proxy_async_shared();
  if (kFault != Fault::kNoBarrier) ptx::named_barrier_sync(1, 128);
  out[thread] = multiply_tiles(s);
}

// (d) TMA -> wgmma, mbarrier.
template <Fault kFault>
__global__ void tma_wgmma(CUtensorMap const __grid_constant__ ones, uint32_t* out) {
  __shared__ Shared s;
  begin(s, {2, 1, 1});
  if (warp_of_thread() == 4) {
    load_ones(s.a, s.full[0], ones);
    load_ones(s.b, s.full[0], ones);
  } else {
    if (kFault == Fault::kNone) ptx::mbarrier_wait(s.full[0], 0);
    out[threadIdx.x] = multiply_tiles(s);
  }
  ptx::mbarrier_wait(s.full[0], 0);
}

// (e), (f) stmatrix or ordinary store -> ordinary load of another warp, mbarrier on which one lane or all arrive.
template <bool kIsMatrix, uint32_t kArrivals, Fault kFault>
__global__ void store_arrive_load(uint32_t* out) {
  __shared__ Shared s;
  begin(s, {1, kArrivals, 1});
  int const lane = lane_of_thread();
  if (warp_of_thread() == 0) {
    uint32_t matrices[4] = {kSeven, kSeven, kSeven, kSeven};
    if (kIsMatrix) ptx::stmatrix_x4(ptx::shared_address(s.a) + lane * 16, matrices);
    else
      for (int i = 0; i < 4; ++i) s.a[i * 32 + lane] = kSeven;
    arrive_warp<kArrivals>(s.ready);
  } else {
    if (kFault == Fault::kNone) ptx::mbarrier_wait(s.ready, 0);
    uint32_t all = 0xffffffff;
    for (int i = 0; i < 4; ++i) all &= s.a[127 - (i * 32 + lane)];
    out[lane] = all;
  }
}

// (g) ordinary load -> TMA over the same bytes, mbarrier on which one lane or all arrive.
template <uint32_t kArrivals, Fault kFault>
__global__ void load_tma(CUtensorMap const __grid_constant__ ones, uint32_t* out) {
  __shared__ Shared s;
  begin(s, {1, 1, kArrivals});
  if (warp_of_thread() == 0) {
    load_ones(s.a, s.full[0], ones);
    if (kFault == Fault::kNone) ptx::mbarrier_wait(s.empty, 0);
    else ptx::mbarrier_wait(s.full[0], 0);
    load_ones(s.a, s.full[1], ones);
  } else {
    ptx::mbarrier_wait(s.full[0], 0);
    out[lane_of_thread()] = read_tile(s.a);
    arrive_warp<kArrivals>(s.empty);
  }
  ptx::mbarrier_wait(s.full[1], 0);
}

// (h) wgmma -> TMA over the same bytes, mbarrier on which one lane of each warp or all arrive.
template <uint32_t kArrivals, Fault kFault>
__global__ void wgmma_tma(CUtensorMap const __grid_constant__ ones, uint32_t* out) {
  __shared__ Shared s;
  begin(s, {2, 1, 4 * kArrivals});
  if (warp_of_thread() == 4) {
    for (uint64_t& full : s.full) {
      if (kFault == Fault::kNone && &full == &s.full[1]) ptx::mbarrier_wait(s.empty, 0);
      load_ones(s.a, full, ones);
      load_ones(s.b, full, ones);
      ptx::mbarrier_wait(full, 0);
    }
  } else {
    ptx::mbarrier_wait(s.full[0], 0);
    out[threadIdx.x] = multiply_tiles(s);
    arrive_warp<kArrivals>(s.empty);
  }
  ptx::mbarrier_wait(s.full[1], 0);
}

template <auto kKernel, unsigned kThreads>
void launch(RaceCall const& call) {
  kKernel<<<1, kThreads, 0, call.stream>>>(call.out);
}

template <auto kKernel, unsigned kThreads>
void launch_tma(RaceCall const& call) {
  kKernel<<<1, kThreads, 0, call.stream>>>(call.ones, call.out);
}

constexpr Fault kNone = Fault::kNone, kNoBarrier = Fault::kNoBarrier, kNoFence = Fault::kNoFence;
constexpr char kNoWait[] = "no wait on the mbarrier";

constexpr RaceCase kCases[] = {
    {"store_load", "store -> load of another warp, bar.sync", nullptr, 32, kSeven, launch<store_load<kNone>, 64>},
    {"store_load_planted", "store -> load of another warp", "no bar.sync", 32, kSeven, launch<store_load<kNoBarrier>, 64>},
    {"store_load_some_warps", "store -> load, bar.sync of two warps of three", nullptr, 32, kSeven, launch<store_load<kNone>, 96>},
    {"store_load_in_turns", "store -> load, bar.sync, two buffers", nullptr, 32, kSeven, launch<store_load_in_turns<kNone>, 64>},
    {"store_load_in_turns_some", "the same, two warps of three", nullptr, 32, kSeven, launch<store_load_in_turns<kNone>, 96>},
    {"share_row_sums", "store -> load, bar.sync of two warpgroups, others between", nullptr, 32, kSeven,
     launch<share_row_sums<kNone>, 384>},
    {"share_row_sums_planted", "the same", "no bar.sync", 32, kSeven, launch<share_row_sums<kNoBarrier>, 384>},
    {"store_load_in_turns_planted", "store -> load, two buffers", "no bar.sync", 32, kSeven, launch<store_load_in_turns<kNoBarrier>, 64>},
    {"tma_load", "TMA -> load, mbarrier", nullptr, 32, kOnes, launch_tma<tma_load<kNone>, 64>},
    {"tma_load_planted", "TMA -> load", kNoWait, 32, kOnes, launch_tma<tma_load<kNoBarrier>, 64>},
    {"store_wgmma", "store -> wgmma, fence and bar.sync", nullptr, 128, kSixtyFour, launch<store_wgmma<kNone>, 128>},
    {"store_wgmma_planted", "store -> wgmma, fence", "no bar.sync", 128, kSixtyFour, launch<store_wgmma<kNoBarrier>, 128>},
    {"store_wgmma_no_fence", "store -> wgmma, bar.sync", "no proxy fence", 128, kSixtyFour, launch<store_wgmma<kNoFence>, 128>},
    {"tma_wgmma", "TMA -> wgmma, mbarrier", nullptr, 128, kSixtyFour, launch_tma<tma_wgmma<kNone>, 160>},
    {"tma_wgmma_planted", "TMA -> wgmma", kNoWait, 128, kSixtyFour, launch_tma<tma_wgmma<kNoBarrier>, 160>},
    {"stmatrix_one_lane", "stmatrix -> load, one lane arrives", nullptr, 32, kSeven, launch<store_arrive_load<true, kOneLane, kNone>, 64>},
    {"stmatrix_one_lane_planted", "stmatrix -> load, one lane arrives", kNoWait, 32, kSeven,
     launch<store_arrive_load<true, kOneLane, kNoBarrier>, 64>},
    {"stmatrix_all_lanes", "stmatrix -> load, all lanes arrive", nullptr, 32, kSeven,
     launch<store_arrive_load<true, kAllLanes, kNone>, 64>},
    {"stmatrix_all_lanes_planted", "stmatrix -> load, all lanes arrive", kNoWait, 32, kSeven,
     launch<store_arrive_load<true, kAllLanes, kNoBarrier>, 64>},
    {"store_one_lane", "store -> load, one lane arrives", nullptr, 32, kSeven, launch<store_arrive_load<false, kOneLane, kNone>, 64>},
    {"store_one_lane_planted", "store -> load, one lane arrives", kNoWait, 32, kSeven,
     launch<store_arrive_load<false, kOneLane, kNoBarrier>, 64>},
    {"store_all_lanes", "store -> load, all lanes arrive", nullptr, 32, kSeven, launch<store_arrive_load<false, kAllLanes, kNone>, 64>},
    {"store_all_lanes_planted", "store -> load, all lanes arrive", kNoWait, 32, kSeven,
     launch<store_arrive_load<false, kAllLanes, kNoBarrier>, 64>},
    {"load_tma_one_lane", "load -> TMA, one lane arrives", nullptr, 32, kOnes, launch_tma<load_tma<kOneLane, kNone>, 64>},
    {"load_tma_all_lanes", "load -> TMA, all lanes arrive", nullptr, 32, kOnes, launch_tma<load_tma<kAllLanes, kNone>, 64>},
    {"load_tma_planted", "load -> TMA", kNoWait, 32, kOnes, launch_tma<load_tma<kAllLanes, kNoBarrier>, 64>},
    {"wgmma_tma_one_lane", "wgmma -> TMA, one lane arrives", nullptr, 128, kSixtyFour, launch_tma<wgmma_tma<kOneLane, kNone>, 160>},
    {"wgmma_tma_all_lanes", "wgmma -> TMA, all lanes arrive", nullptr, 128, kSixtyFour, launch_tma<wgmma_tma<kAllLanes, kNone>, 160>},
    {"wgmma_tma_planted", "wgmma -> TMA", kNoWait, 128, kSixtyFour, launch_tma<wgmma_tma<kAllLanes, kNoBarrier>, 160>},
};

}  // namespace

std::span<RaceCase const> race_cases() { return kCases; }

}  // namespace flashmla::test
