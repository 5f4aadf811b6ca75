// A decode problem bound to one Hopper GPU.
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace flashmla::cuda {

/// Loads every kernel and sets every attribute that update and run need; legal inside stream capture. Throws core::Error.
std::unique_ptr<core::DecodePlan> make_decode_plan(core::Problem const& problem, core::Target const& target);

/// The division of work on `num_sms` multiprocessors: `group` CTAs a worker.
core::PlanShape plan_shape(int32_t group, int32_t num_sms);

}  // namespace flashmla::cuda
