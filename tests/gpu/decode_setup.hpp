// One dense decode on the GPU, set up the way a serving engine would: shuffled pages, a wide page table with junk past
// each length, several caches that take turns so that none is found in L2.
#pragma once

#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "gpu/bench_cases.hpp"
#include "gpu/gpu_support.hpp"

namespace flashmla::test {

struct SetupOptions {
  bool is_fp16 = false;
  flashmla_dtype out_dtype = FLASHMLA_BF16;
  int32_t num_caches = 1;   // at least
  size_t rotate_bytes = 0;  // caches take turns over at least so many bytes
  float q_std = 0.1F;
  bool is_plan_late = false;  // the caller calls make_plan, perhaps inside a capture
};

class DecodeSetup {
 public:
  DecodeSetup(BenchCase const& c, std::vector<int32_t> lens, SetupOptions const& options);

  [[nodiscard]] core::Problem const& problem() const { return problem_; }
  [[nodiscard]] core::DecodePlan const& plan() const { return *plan_; }
  [[nodiscard]] core::DecodeCall call(int32_t cache) const;
  [[nodiscard]] core::LengthsCall lengths() const;
  [[nodiscard]] int32_t num_caches() const { return static_cast<int32_t>(caches_.size()); }
  [[nodiscard]] void* schedule() const { return schedule_.get(); }
  [[nodiscard]] void* workspace() const { return workspace_.get(); }
  [[nodiscard]] int64_t total_tokens() const;
  [[nodiscard]] std::vector<int32_t> const& lens() const { return lens_; }
  [[nodiscard]] DeviceArray<int32_t>& kv_len() { return kv_len_; }
  /// Binds the problem to device 0; allocates nothing on the device.
  void make_plan();
  /// Other lengths, each at most that of the constructor, for the calls to come.
  void set_lengths(std::vector<int32_t> const& lens);
  /// Every request gets other pages.
  void shuffle_pages(uint64_t seed);
  [[nodiscard]] std::vector<char> download_out() const { return out_.download(); }
  /// NaN everywhere in out and lse.
  void poison_outputs();
  void reset(cudaStream_t stream) const { plan_->reset(workspace(), stream); }
  void update(cudaStream_t stream) const { plan_->update(lengths(), schedule(), stream); }
  void run(int32_t cache, cudaStream_t stream) const { plan_->run(call(cache), schedule(), workspace(), stream); }

  struct Errors {
    double out_l2 = 0;   // relative L2 error, the worst of the requests
    double lse_abs = 0;  // the worst absolute error
  };
  /// What the last run over `cache` wrote for these requests, against the fp64 oracle. Throws when something is not finite.
  [[nodiscard]] Errors compare(int32_t cache, std::vector<int32_t> const& requests) const;

 private:
  [[nodiscard]] int64_t pages_of(int32_t kv_len) const;

  BenchCase case_;
  std::vector<int32_t> lens_;
  SetupOptions options_;
  core::Problem problem_;
  std::unique_ptr<core::Backend> backend_;
  std::unique_ptr<core::DecodePlan> plan_;
  std::vector<int32_t> capacity_;  // the lengths of the constructor, for which each request has pages
  int64_t num_pages_ = 0, table_pages_ = 0;
  DeviceArray<int32_t> kv_len_, table_;
  DeviceArray<uint16_t> q_;
  std::vector<DeviceArray<uint16_t>> caches_;  // [num_pages, page_tokens, h_kv, 576] each
  DeviceArray<char> out_, schedule_, workspace_;
  DeviceArray<float> lse_;
};

/// The lengths of a case.
std::vector<int32_t> make_lens(BenchCase const& c, uint64_t seed);

}  // namespace flashmla::test
