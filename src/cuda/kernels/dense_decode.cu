// Launch of the dense decode kernels: one instance an element type; the type of out is chosen at run time, since it only
// matters in the epilogue.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>

#include "core/parts.hpp"
#include "cuda/errors.hpp"
#include "cuda/kernels/dense_decode.cuh"
#include "cuda/tensor_map.hpp"

namespace flashmla::cuda {
namespace {

using Kernel = void (*)(dense_decode::TensorMaps, DenseDecodeParams);

Kernel kernel_for(flashmla_dtype kv_dtype) {
  return kv_dtype == FLASHMLA_BF16 ? dense_decode::dense_decode_kernel<__nv_bfloat16> : dense_decode::dense_decode_kernel<__half>;
}

bool is_multiple(void const* pointer, core::RowStrides const& stride, int64_t element_bytes, int64_t alignment) {
  auto const base = static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer));
  int64_t const all = base | stride.batch * element_bytes | stride.token * element_bytes | stride.head * element_bytes;
  return all % alignment == 0;
}

int64_t bytes_of(flashmla_dtype dtype) { return dtype == FLASHMLA_FP32 ? 4 : 2; }

}  // namespace

int choose_group(int64_t rows) {
  int64_t const tiles = core::ceil_div(rows, kCtaRows);
  int best = 1;
  int64_t best_tiles = tiles;  // row tiles * group: what the CTAs compute, empty tiles included
  for (int group = 2; group <= kMaxGroup; ++group) {
    int64_t const computed = core::ceil_div(tiles, group) * group;
    if (computed <= best_tiles) best = group, best_tiles = computed;
  }
  return best;
}

void prepare_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype) {
  check_cuda(cudaFuncSetAttribute(kernel_for(kv_dtype), cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(dense_decode::Shared)), "plan",
             "cudaFuncSetAttribute");
}

void launch_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype out_dtype, DenseDecodeParams const& params, flashmla_stream stream) {
  DenseDecodeParams launched = params;
  core::DecodeCall const& call = params.call;
  launched.out_dtype = out_dtype;
  int64_t const rows = static_cast<int64_t>(call.q_tokens) * params.h_q;
  StartParams& start = launched.start;
  start.schedule = params.schedule;
  start.kv_len = call.kv_len;
  start.page_table = call.page_table;
  start.page_table_stride = call.page_table_stride;
  start.length_limit = static_cast<int32_t>(core::length_limit(call.table_pages, kTileTokens, params.max_kv_len));
  start.num_pages = static_cast<int32_t>(std::min<int64_t>(call.num_pages, std::numeric_limits<int32_t>::max()));
  start.num_row_tiles = static_cast<int32_t>(core::ceil_div(rows, int64_t{kCtaRows} * params.group));
  start.num_rows = static_cast<int32_t>(rows);
  start.group = params.group;
  start.batch = call.batch;
  start.q_tokens = call.q_tokens;
  launched.h_q_inverse =
      params.h_q == 1
          ? 0
          : static_cast<uint32_t>(((uint64_t{1} << 32) + static_cast<uint64_t>(params.h_q) - 1) / static_cast<uint64_t>(params.h_q));
  launched.q_is_aligned = is_multiple(call.q_nope, call.q_nope_stride, 2, 16) && is_multiple(call.q_pe, call.q_pe_stride, 2, 16);
  launched.out_alignment = 0;
  for (int32_t const bytes : {8, 16})
    if (is_multiple(call.out, call.out_stride, bytes_of(out_dtype), bytes)) launched.out_alignment = bytes;
  // -inf * 0 is NaN: a scale of 0 becomes one that leaves every score at 0 and every masked one at -inf.
  if (launched.scale_log2 == 0.0F) launched.scale_log2 = 1e-30F;
  core::RowStrides const& q = call.q_nope_stride;
  int64_t const row_stride = params.h_q == 1 ? q.token : q.head;
  bool const is_even = call.q_tokens == 1 || params.h_q == 1 || q.token == q.head * params.h_q;
  launched.q_is_tensor = launched.q_is_aligned && is_even && (rows == 1 || row_stride > 0) && (call.batch == 1 || q.batch > 0);
  CacheTensorMaps const cache = make_cache_tensor_maps(call.ckv, call.num_pages, call.ckv_page_stride, call.ckv_token_stride, kv_dtype);
  dense_decode::TensorMaps maps{cache.latent, cache.rope, {}};
  if (launched.q_is_tensor) maps.q = make_query_tensor_map(call.q_nope, rows, row_stride, call.batch, q.batch, kv_dtype);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.group), static_cast<unsigned>(params.max_workers));
  config.blockDim = dense_decode::kThreads;
  config.dynamicSmemBytes = sizeof(dense_decode::Shared);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel_for(kv_dtype), maps, launched), "decode", "cudaLaunchKernelEx(dense_decode)");
}

std::string describe_dense_decode(flashmla_dtype kv_dtype, flashmla_dtype) {
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel_for(kv_dtype)), "plan", "cudaFuncGetAttributes");
  return "dense_decode: 64 rows x 64 tokens a CTA, " + std::to_string(dense_decode::kThreads) + " threads, " +
         std::to_string(attributes.numRegs) + " registers at launch (" + std::to_string(dense_decode::kConsumerRegisters) +
         " a consumer, " + std::to_string(dense_decode::kProducerRegisters) + " a producer), " +
         std::to_string(sizeof(dense_decode::Shared)) + " bytes of shared memory, " + std::to_string(attributes.localSizeBytes) +
         " bytes of stack";
}

}  // namespace flashmla::cuda
