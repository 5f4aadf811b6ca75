// Small kernels, each with and without a barrier that it needs, to see which accesses compute-sanitizer's racecheck follows.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <span>

namespace flashmla::test {

inline constexpr int kRaceOutputs = 128;  // at most, one a thread that reads

struct RaceCall {
  CUtensorMap ones;  // [64, 64] BF16 of 1.0 as {64 columns, 64 rows, 1, 1, 1}, swizzled by 128 bytes, in one box
  uint32_t* out;     // [num_outputs] of the case
  cudaStream_t stream;
};

struct RaceCase {
  char const* name;
  char const* what;     // who writes, who reads, what orders them
  char const* planted;  // what is missing; null: nothing, the kernel is right
  int num_outputs;
  uint32_t expected;  // every output of a kernel that is right
  void (*launch)(RaceCall const& call);
};

/// One CTA each.
std::span<RaceCase const> race_cases();

}  // namespace flashmla::test
