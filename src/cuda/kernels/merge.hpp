// Launch interface of the public merge of partial results.
#pragma once

#include "core/calls.hpp"

namespace flashmla::cuda {

/// Enqueues; legal inside capture, the first time too. Throws core::Error.
void launch_merge(core::MergeCall const& call, flashmla_stream stream);

}  // namespace flashmla::cuda
