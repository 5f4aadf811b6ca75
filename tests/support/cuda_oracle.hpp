// The definition of correct on the GPU: naive fp64 dense decode over the pointers that the library gets, so that every
// case of the full tier can be checked in minutes. It is itself checked against src/reference (tests/gpu).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "conformance/oracle.hpp"

namespace flashmla::test {

/// fp64 attention of `rows`, rules as reference::decode_row; `call` holds device pointers of the current device. Writes
/// host memory: out [rows, v_dim], lse [rows]. Throws std::runtime_error when CUDA fails.
void cuda_reference_decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
                           double* lse);

/// The same behind conformance's interface.
std::unique_ptr<conformance::Oracle> make_cuda_oracle();

}  // namespace flashmla::test
