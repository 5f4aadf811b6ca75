// Launcher and instances of append: 16-byte words where every address allows them, else elements.
#include <limits>
#include <string>

#include "core/planner.hpp"
#include "cuda/kernels/append.cuh"
#include "cuda/kernels/append.hpp"
#include "cuda/launch.hpp"

namespace flashmla::cuda {
namespace {

constexpr int64_t kElementBytes = 2;
constexpr int64_t kVectorElems = sizeof(uint4) / kElementBytes;

bool is_aligned(void const* pointer) { return reinterpret_cast<uintptr_t>(pointer) % sizeof(uint4) == 0; }

bool allows_vectors(core::AppendCall const& call) {
  if (!is_aligned(call.ckv) || !is_aligned(call.kpe) || !is_aligned(call.cache)) return false;
  for (int64_t const elems : {call.ckv_token_stride, call.kpe_token_stride, call.page_stride, call.token_stride,
                              int64_t{call.format->latent}, int64_t{call.format->rope}})
    if (elems % kVectorElems != 0) return false;
  return true;
}

}  // namespace

void launch_append(core::AppendCall const& call, flashmla_stream stream) {
  bool const is_vector = allows_vectors(call);
  int64_t const unit = is_vector ? kVectorElems : 1;
  append::AppendParams params{};
  params.ckv = call.ckv;
  params.kpe = call.kpe;
  params.cache = call.cache;
  params.ckv_token_stride = call.ckv_token_stride / unit;
  params.kpe_token_stride = call.kpe_token_stride / unit;
  params.page_stride = call.page_stride / unit;
  params.token_stride = call.token_stride / unit;
  params.latent = static_cast<int32_t>(call.format->latent / unit);
  params.rope = static_cast<int32_t>(call.format->rope / unit);
  params.tokens = call.tokens;
  params.num_pages = call.num_pages;
  params.page_tokens = call.page_tokens;
  params.slot_mapping = call.slot_mapping;
  params.fault = call.fault;
  auto* const kernel = is_vector ? append::append_kernel<uint4> : append::append_kernel<uint16_t>;
  static LoadOnce loads[2];
  loads[is_vector ? 1 : 0]("append", kernel, call.device.index);
  int64_t const grid = core::ceil_div(call.tokens, append::kTokensPerCta);
  if (grid > std::numeric_limits<int32_t>::max())
    core::fail_unsupported("append", "kv", std::to_string(call.tokens) + " tokens", "fewer than 2^33 tokens");
  launch_overlapped("append", kernel, {static_cast<unsigned>(grid), append::kThreads, 0, static_cast<cudaStream_t>(stream)}, params);
}

}  // namespace flashmla::cuda
