// Stand-alone operations: no plan, the device is that of the output. A call without elements is a no-op.
#include "api/backends.hpp"
#include "api/boundary.hpp"

namespace core = flashmla::core;

extern "C" {

flashmla_status flashmla_merge(flashmla_merge_args const* args, flashmla_stream stream) {
  constexpr char kOperation[] = "merge";
  return flashmla::api::guarded(kOperation, [&] {
    flashmla::api::require(kOperation, "args", args);
    core::MergeCall const call = core::validate(*args);
    core::Backend const& backend = flashmla::api::backend_for(kOperation, call.device);
    if (call.tokens > 0 && call.heads > 0) backend.merge(call, stream);
  });
}

flashmla_status flashmla_append(flashmla_append_args const* args, flashmla_stream stream) {
  constexpr char kOperation[] = "append";
  return flashmla::api::guarded(kOperation, [&] {
    flashmla::api::require(kOperation, "args", args);
    core::AppendCall const call = core::validate(*args);
    core::Backend const& backend = flashmla::api::backend_for(kOperation, call.device);
    if (call.tokens > 0) backend.append(call, stream);
  });
}

flashmla_status flashmla_copy_pages(flashmla_copy_pages_args const* args, flashmla_stream stream) {
  constexpr char kOperation[] = "copy_pages";
  return flashmla::api::guarded(kOperation, [&] {
    flashmla::api::require(kOperation, "args", args);
    core::CopyPagesCall const call = core::validate(*args);
    core::Backend const& backend = flashmla::api::backend_for(kOperation, call.device);
    if (call.num_copies > 0 && call.width > 0) backend.copy_pages(call, stream);
  });
}

}  // extern "C"
