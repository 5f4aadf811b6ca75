// Items of two CTAs that have nothing else to do: they end together, and each finishes half of the columns.
//
// Part s of the item keeps the half of O that warpgroup s holds, and gives the other to the CTA of part 1 - s: through memory, as the
// FP16 rows of a partial result, half as many as where each stores all of its part. A warp of the one and the warp of the other that
// holds the same 16 rows and the same half meet at a flag of their own:
//   giver : rows to memory; flag = given (release). Was it given up? Then this warp finishes these rows.
//   keeper: waits until flag = given (acquire), adds the giver's rows to its own, leaves 0, and finishes them.
// Nothing guarantees that the GPU runs all CTAs of a grid at once, so a keeper waits no longer than kPatience: then it stores its own rows
// too and gives up (flag = given up), unless the giver has come meanwhile. Both sums are the same bits.
#pragma once

#include "cuda/kernels/dense_decode_partials.cuh"
#include "cuda/ptx/copy.cuh"

namespace flashmla::cuda::dense_decode {

inline constexpr uint32_t kGiven = 1, kGivenUp = 2;

/// The flag of the warp's rows and half of the columns.
__device__ __forceinline__ uint32_t* exchange_flag(DenseDecodeParams const& params, Part const& part, OutputThread const& me) {
  auto* const flags = reinterpret_cast<uint32_t*>(static_cast<char*>(params.workspace) + sizeof(core::WorkspaceHeader));
  int32_t const cta = (static_cast<int32_t>(blockIdx.y) - part.split) * params.start.group + static_cast<int32_t>(blockIdx.x);
  return flags + cta * kExchangeFlags + me.warpgroup * 4 + me.thread / 32;
}

/// Rounds the thread's rows to what a partial result would keep of them, before they wait for the other part's: whoever adds them up
/// gets the same bits. O, its largest values and the factors that O still needs change together.
template <int kCount>
__device__ __forceinline__ void round_rows(float (&o)[kCount], RowEnds& ends, float (&largest)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    RowScale const scale(largest[half]);
    largest[half] *= scale.up, ends.inverse[half] *= scale.down;
#pragma unroll
    for (int block = 0; block < kCount / 4; ++block) {
      float &low = o[accumulator_index(block, half, 0)], &high = o[accumulator_index(block, half, 1)];
      uint32_t const word = pack<__half>(low * scale.up, high * scale.up);
      float2 const rounded = __half22float2(reinterpret_cast<__half2 const&>(word));
      low = rounded.x, high = rounded.y;
    }
  }
}

/// Adds the other part's rows, which are in memory, to those of the thread. Through shared memory, where KV was: registers that hold
/// O have no room for all that has to be in flight. The sum of two products, each rounded, is the same bits in either order.
template <int kCount>
__device__ __forceinline__ void add_given_rows(float (&o)[kCount], RowEnds& ends, DenseDecodeParams const& params, Part const& part,
                                               OutputThread const& me) {
  constexpr int kLatent = kCount * 4, kUnits = kCount / 16;  // units of 16 bytes of each of the thread's rows
  __syncwarp();
  if (me.lane == 0) *exchange_flag(params, part, me) = 0;
  int64_t const first_row = slot_row(params, static_cast<int32_t>(blockIdx.y) - part.split, 1 - part.split);
  uint32_t const cells =
      me.kv + static_cast<uint32_t>(me.warpgroup * kWarpgroupThreads + (me.thread & ~31)) * (2 * kUnits * 16) + me.lane * 16;
  float2 other_row[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int64_t const row = first_row + fragment_row(me.thread, half);
    other_row[half] = __ldcg(partial_end(params, row, me));
#pragma unroll
    for (int i = 0; i < kUnits; ++i)
      ptx::cp_async_16(cells + (half * kUnits + i) * 512, partial_units<kLatent>(params, row, me) + 4 * i, 16);
  }
  ptx::cp_async_wait_all();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float const max = fmaxf(ends.lse_log2[half], other_row[half].x), reference = max == -INFINITY ? 0.0F : max;
    float const weight[2] = {ptx::exp2_approx(ends.lse_log2[half] - reference), ptx::exp2_approx(other_row[half].x - reference)};
    float const factor[2] = {weight[0] * ends.inverse[half], weight[1] * other_row[half].y}, sum = weight[0] + weight[1];
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      __syncwarp();  // or the sums of all units wait for each other, in registers that there are not
      uint4 const values = ptx::load_shared_16(cells + (half * kUnits + i) * 512);
      uint32_t const words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float2 const other = __half22float2(reinterpret_cast<__half2 const&>(words[k]));
        float &low = o[accumulator_index(4 * i + k, half, 0)], &high = o[accumulator_index(4 * i + k, half, 1)];
        low = __fadd_rn(__fmul_rn(factor[0], low), __fmul_rn(factor[1], other.x));
        high = __fadd_rn(__fmul_rn(factor[0], high), __fmul_rn(factor[1], other.y));
      }
    }
    ends.set(half, max, sum);
  }
}

/// Keeper: whether the giver's rows are in memory; false where they do not come in time.
__device__ __forceinline__ bool wait_for_rows(uint32_t const* flag) {
  int64_t const start = clock64();
  while (__any_sync(0xffffffffU, ptx::load_acquire(flag) != kGiven))
    if (__any_sync(0xffffffffU, clock64() - start >= kPatience)) return false;
  return true;
}

/// Once the warp's own rows are in memory: whether it has to finish them, since the other warp's are there as well and that is gone.
__device__ __forceinline__ bool is_left_behind(uint32_t* flag, bool is_giver, int32_t lane) {
  uint32_t before = 0;
  __syncwarp();
  if (lane == 0) before = ptx::exchange_acquire_release(flag, is_giver ? kGiven : kGivenUp);
  return __shfl_sync(0xffffffffU, before, 0) == (is_giver ? kGivenUp : kGiven);
}

}  // namespace flashmla::cuda::dense_decode
