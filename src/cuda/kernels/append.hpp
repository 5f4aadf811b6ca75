// Launch interface of append: new tokens into their pages.
#pragma once

#include "core/calls.hpp"

namespace flashmla::cuda {

/// Enqueues; legal inside capture, the first time too. Throws core::Error.
void launch_append(core::AppendCall const& call, flashmla_stream stream);

}  // namespace flashmla::cuda
