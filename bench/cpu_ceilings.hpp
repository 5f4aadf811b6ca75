// What this CPU can do at most, measured where and when it is asked: the ceilings that CPU figures are a percentage of.
//
// Clocks and shared memory channels move by tens of percent within minutes, so a figure means something only next to
// ceilings from the same threads in the same seconds: measure, time, measure again, and take the best of each.
#pragma once

#include <flashmla/flashmla.h>

#include <vector>

namespace flashmla::bench {

struct CpuCeilings {
  double gflops = 0;       // of the instructions that BF16 caches use: tiles, BF16 dot products or float32 multiply-adds
  double fp32_gflops = 0;  // of float32 multiply-adds, which FP16 caches use
  double read_gbps = 0;    // 10^9 bytes/s, from memory, each thread its own range
};

/// Holds the memory of the bandwidth test, so that measuring again costs a few milliseconds.
class CpuProbe {
 public:
  /// `isa` must be usable on this machine (flashmla_get_kernel_info tells). AUTO takes the best.
  CpuProbe(flashmla_isa isa, int threads);

  /// One measurement, best of three short ones. With one thread it runs on the caller's.
  [[nodiscard]] CpuCeilings measure() const;

 private:
  flashmla_isa isa_;
  int threads_;
  std::vector<double> memory_;
};

/// One measurement with a probe of its own.
CpuCeilings measure_cpu_ceilings(flashmla_isa isa, int threads);

/// Field by field the larger.
CpuCeilings best_of(CpuCeilings const& a, CpuCeilings const& b);

/// Seconds that dense decode needs at least: arithmetic or memory, whichever takes longer.
double decode_floor_seconds(CpuCeilings const& ceilings, flashmla_dtype cache_dtype, double flop, double bytes);

}  // namespace flashmla::bench
