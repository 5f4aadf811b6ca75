// A decode problem bound to one Hopper GPU.
#pragma once

#include <memory>

#include "core/backend.hpp"
#include "cuda/kernels/dense_decode.hpp"

namespace flashmla::cuda {

/// Loads every kernel and sets every attribute that update and run need; legal inside stream capture. Throws core::Error.
std::unique_ptr<core::DecodePlan> make_decode_plan(core::Problem const& problem, core::Target const& target);

/// The division of work on `num_sms` multiprocessors: `group` CTAs a worker, each on rows of one KV head.
core::PlanShape plan_shape(int32_t group, int32_t num_sms, int32_t kv_heads = 1);

/// That of a call with `q_tokens` (0: ragged) in a plan of shape `wide`: short calls of few rows have row tiles of 16.
core::PlanShape call_shape(core::Problem const& problem, core::PlanShape const& wide, int32_t batch, int32_t q_tokens);

/// The caller-owned buffers of a run.
struct StepBuffers {
  void const* schedule;
  void* workspace;
};

/// What run passes to its kernels; the bench launches them one by one with it.
DenseDecodeParams decode_params(core::Problem const& problem, core::PlanShape const& shape, core::DecodeCall const& call,
                                StepBuffers const& buffers);

}  // namespace flashmla::cuda
