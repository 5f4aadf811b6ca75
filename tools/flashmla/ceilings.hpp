// The limits of a device, measured in the run that is compared with them: machines drift, so nothing is remembered.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/cpu_ceilings.hpp"
#include "tools/flashmla/device.hpp"
#include "tools/flashmla/target.hpp"

namespace flashmla::tools {

struct Ceilings {
  double bytes_per_s = 0;
  double flop_per_s = 0;
};

/// Of each the higher.
Ceilings better_of(Ceilings const& a, Ceilings const& b);

/// FLOP and bytes of attention: kv_tokens summed over the batch, qk_dim + v_dim multiply-adds a head and token.
struct Work {
  double flop = 0;
  double bytes = 0;

  Work& operator+=(Work const& other);
};
Work decode_work(int64_t batch, int64_t q_tokens, int64_t kv_tokens, int32_t heads, ElementType type = {});

/// The time below which `work` cannot be done.
double floor_seconds(Work const& work, Ceilings const& ceilings);

class CeilingProbe {
 public:
  CeilingProbe(DeviceContext& device, Target const& target, DType dtype);

  /// Measures once more; takes a fraction of a second.
  Ceilings sample();
  /// The highest so far of each.
  [[nodiscard]] Ceilings best() const;
  [[nodiscard]] std::vector<Ceilings> const& samples() const { return samples_; }

  /// What the two numbers are, in words.
  [[nodiscard]] std::string bandwidth_name() const;
  [[nodiscard]] std::string rate_name() const;
  /// False where the rate is a data sheet's.
  [[nodiscard]] bool rate_measured() const { return !cuda(); }

 private:
  [[nodiscard]] bool cuda() const { return device_.device().kind == FLASHMLA_CUDA; }

  DeviceContext& device_;
  DType dtype_;  // of the cache: it decides which instructions do the work on a CPU
  flashmla_isa isa_;
  int threads_;
  std::unique_ptr<bench::CpuProbe> cpu_;
  std::vector<Ceilings> samples_;
};

}  // namespace flashmla::tools
