#include "conformance/oracle.hpp"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

class ReferenceOracle final : public Oracle {
 public:
  explicit ReferenceOracle(int num_threads)
      : num_threads_(num_threads > 0 ? num_threads : std::max(1u, std::thread::hardware_concurrency())) {}
  [[nodiscard]] flashmla_device_kind memory() const override { return FLASHMLA_CPU; }

  // The reference takes 2 us a token of a row (Xeon, 2026-11-22): this is some 40 ms of one core, and a full small call.
  [[nodiscard]] int64_t row_budget(double mean_kv_len) const override {
    return std::clamp<int64_t>(static_cast<int64_t>(20000 / std::max(mean_kv_len, 1.0)), 8, 64);
  }

  void decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
              double* lse) override {
    std::atomic<size_t> next{0};
    auto const work = [&] {
      for (size_t i = next++; i < rows.size(); i = next++) {
        reference::RowResult const row = reference::decode_row(problem, call, rows[i]);
        std::copy(row.out.begin(), row.out.end(), out + i * row.out.size());
        lse[i] = row.lse;
      }
    };
    std::vector<std::jthread> helpers;
    for (int i = 1; i < num_threads_; ++i) helpers.emplace_back(work);
    work();
  }

 private:
  int num_threads_;
};

}  // namespace

std::unique_ptr<Oracle> make_reference_oracle(int num_threads) { return std::make_unique<ReferenceOracle>(num_threads); }

double load_number(flashmla_dtype dtype, void const* data, int64_t index) { return reference::load(dtype, data, index); }

}  // namespace flashmla::conformance
