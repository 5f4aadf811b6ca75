// Who says what is right. The default is the CPU reference on chosen rows; a GPU test supplies an fp64 CUDA kernel that
// does every row in the time the reference needs for a few, and is itself checked against the reference.
#pragma once

#include <memory>
#include <span>

#include "core/calls.hpp"
#include "reference/decode.hpp"

namespace flashmla::conformance {

class Oracle {
 public:
  virtual ~Oracle() = default;
  /// FLASHMLA_CPU: `decode` gets host pointers. FLASHMLA_CUDA: it gets the pointers that the library gets.
  [[nodiscard]] virtual flashmla_device_kind memory() const = 0;
  /// Rows worth checking in a call where a row reads `mean_kv_len` tokens on average; at least 1.
  [[nodiscard]] virtual int64_t row_budget(double mean_kv_len) const = 0;
  /// The result of `rows`, unrounded, sink applied, into host memory: out [rows, v_dim], lse [rows] in the problem's
  /// base. Rules as for reference::decode_row. All work of earlier calls on the device has finished. Ignores call.out
  /// and call.lse.
  virtual void decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
                      double* lse) = 0;
};

/// The reference over `num_threads` threads (0: every core).
std::unique_ptr<Oracle> make_reference_oracle(int num_threads = 0);

/// Element `index` of an array of BF16, FP16 or FP32, for callers who judge rows of their own.
double load_number(flashmla_dtype dtype, void const* data, int64_t index);

}  // namespace flashmla::conformance
