// Launch interface of copy_pages: whole pages over other pages, in the caches of all layers.
#pragma once

#include "core/calls.hpp"

namespace flashmla::cuda {

/// Enqueues; legal inside capture, the first time too: what to copy travels in the launch itself. Throws core::Error.
void launch_copy_pages(core::CopyPagesCall const& call, flashmla_stream stream);

}  // namespace flashmla::cuda
