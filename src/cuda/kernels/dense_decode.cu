// Launch of the dense decode kernels: one instance an element type and number of latent columns; the type of out is chosen at run
// time, since it only matters in the epilogue.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/parts.hpp"
#include "cuda/errors.hpp"
#include "cuda/kernels/dense_decode.cuh"
#include "cuda/kernels/dense_decode_chunks.cuh"
#include "cuda/kernels/scored/kernel.cuh"
#include "cuda/kernels/transposed/kernel.cuh"
#include "cuda/launch.hpp"
#include "cuda/tensor_map.hpp"

namespace flashmla::cuda {
namespace {

using Kernel = void (*)(dense_decode::TensorMaps, DenseDecodeParams);

template <class Element, Calls kCalls, int kLatent>
Kernel kernel_of(Paging paging) {
  switch (paging) {
    case Paging::kTiles:
      return dense_decode::dense_decode_kernel<Element, Paging::kTiles, kCalls, kLatent>;
    case Paging::kBoxes:
      return dense_decode::dense_decode_kernel<Element, Paging::kBoxes, kCalls, kLatent>;
    case Paging::kRows:
      return dense_decode::dense_decode_kernel<Element, Paging::kRows, kCalls, kLatent>;
  }
  throw core::Error(FLASHMLA_INTERNAL, "decode: paging: got an unknown one, expected tiles, boxes or rows");
}

template <class Element, int kLatent>
Kernel kernel_of(DenseDecodeKernel const& kernel) {
  switch (kernel.calls) {
    case Calls::kFew:
      return kernel_of<Element, Calls::kFew, kLatent>(kernel.paging);
    case Calls::kMany:
      return kernel_of<Element, Calls::kMany, kLatent>(kernel.paging);
    case Calls::kAny:
      return kernel_of<Element, Calls::kAny, kLatent>(kernel.paging);
  }
  throw core::Error(FLASHMLA_INTERNAL, "decode: calls: got unknown ones, expected few, many or any");
}

Kernel kernel_for(DenseDecodeKernel const& kernel) {
  if (kernel.kv_dtype == FLASHMLA_FP16) return kernel_of<__half, 512>(kernel);
  return kernel.latent == 256 ? kernel_of<__nv_bfloat16, 256>(kernel) : kernel_of<__nv_bfloat16, 512>(kernel);
}

using ScoredKernel = void (*)(dense_decode::scored::TensorMaps, DenseDecodeParams);

template <class Element, Paging kPaging>
ScoredKernel scored_kernel_of(Calls calls) {
  if (calls == Calls::kMany) return dense_decode::scored::scored_decode_kernel<Element, kPaging, Calls::kMany>;
  return dense_decode::scored::scored_decode_kernel<Element, kPaging, Calls::kAny>;
}

template <class Element>
ScoredKernel scored_kernel_of(DenseDecodeKernel const& kernel) {
  if (kernel.paging == Paging::kTiles) return scored_kernel_of<Element, Paging::kTiles>(kernel.calls);
  return scored_kernel_of<Element, Paging::kBoxes>(kernel.calls);
}

/// Of a kernel with a score warpgroup.
ScoredKernel scored_kernel_for(DenseDecodeKernel const& kernel) {
  return kernel.kv_dtype == FLASHMLA_FP16 ? scored_kernel_of<__half>(kernel) : scored_kernel_of<__nv_bfloat16>(kernel);
}

using TransposedKernel = void (*)(dense_decode::transposed::TensorMaps, DenseDecodeParams);

template <class Element>
TransposedKernel transposed_kernel_of(Calls calls) {
  if (calls == Calls::kAny) return dense_decode::transposed::transposed_decode_kernel<Element, Calls::kAny>;
  return dense_decode::transposed::transposed_decode_kernel<Element, Calls::kFew>;
}

/// Of a kernel for few rows.
TransposedKernel transposed_kernel_for(DenseDecodeKernel const& kernel) {
  return kernel.kv_dtype == FLASHMLA_FP16 ? transposed_kernel_of<__half>(kernel.calls) : transposed_kernel_of<__nv_bfloat16>(kernel.calls);
}

/// What a launch needs to know of a kernel beside its parameters.
struct Instance {
  void const* function;
  int threads;
  int shared_bytes;
};
Instance instance_of(DenseDecodeKernel const& kernel) {
  namespace scored = dense_decode::scored;
  namespace transposed = dense_decode::transposed;
  if (kernel.roles == Roles::kTransposed)
    return {reinterpret_cast<void const*>(transposed_kernel_for(kernel)), transposed::kThreads,
            static_cast<int>(sizeof(transposed::Shared))};
  if (kernel.roles == Roles::kScoring)
    return {reinterpret_cast<void const*>(scored_kernel_for(kernel)), scored::kThreads, static_cast<int>(sizeof(scored::Shared))};
  return {reinterpret_cast<void const*>(kernel_for(kernel)), dense_decode::kThreads, static_cast<int>(sizeof(dense_decode::Shared))};
}

void (*merge_for(DenseDecodeKernel const& kernel))(DenseDecodeParams) {
  return kernel.latent == 256 ? dense_decode::merge_chunks_kernel<256> : dense_decode::merge_chunks_kernel<512>;
}

bool is_multiple(void const* pointer, core::RowStrides const& stride, int64_t element_bytes, int64_t alignment) {
  auto const base = static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer));
  int64_t const all = base | stride.batch * element_bytes | stride.token * element_bytes | stride.head * element_bytes;
  return all % alignment == 0;
}

int64_t bytes_of(flashmla_dtype dtype) { return dtype == FLASHMLA_FP32 ? 4 : 2; }

CacheGeometry cache_of(DenseDecodeParams const& params, int64_t latent) {
  core::DecodeCall const& call = params.call;
  return {{call.ckv, call.ckv_page_stride, call.ckv_token_stride, call.ckv_head_stride, latent},
          {call.kpe, call.kpe_page_stride, call.kpe_token_stride, call.kpe_head_stride, params.rope_columns},
          call.cache_fused,
          call.num_pages,
          params.start.page_tokens,
          params.start.kv_heads};
}

/// The tensors of q, whose rows of a KV head lie evenly spaced.
struct QueryMaps {
  CUtensorMap latent, rope;
};

/// Describes q by tensor maps, if a request's rows of a KV head lie evenly spaced. RoPE columns have one where `with_rope`.
QueryMaps set_query(DenseDecodeParams& params, DenseDecodeKernel const& kernel, CUtensorMapL2promotion fetches, bool with_rope) {
  core::DecodeCall const& call = params.call;
  bool const is_ragged = params.start.is_ragged();
  int64_t const all_heads = int64_t{params.heads} * params.start.kv_heads, rows = (is_ragged ? call.total_q : call.q_tokens) * all_heads;
  int64_t const requests = is_ragged ? 1 : call.batch;
  auto const row_stride = [&](core::RowStrides const& q) { return all_heads == 1 ? q.token : q.head; };
  auto const is_tensor = [&](core::RowStrides const& q) {
    bool const is_even =
        (call.q_tokens == 1 && !is_ragged) || (params.start.kv_heads == 1 && (params.heads == 1 || q.token == q.head * params.heads));
    return is_even && (rows == 1 || row_stride(q) > 0) && (requests == 1 || q.batch > 0);
  };
  params.q_is_tensor = params.q_is_aligned && is_tensor(call.q_nope_stride) && (!with_rope || is_tensor(call.q_pe_stride)) && rows > 0;
  QueryMaps maps{};
  if (!params.q_is_tensor) return maps;
  auto const map_of = [&](void const* base, core::RowStrides const& q, int64_t columns) {
    auto const box_rows = static_cast<uint32_t>(kernel.roles == Roles::kTransposed ? kTransposedRows : kCtaRows);
    return make_query_tensor_map({base, rows, row_stride(q), requests, q.batch, columns, box_rows, fetches}, kernel.kv_dtype);
  };
  maps.latent = map_of(call.q_nope, call.q_nope_stride, kernel.latent);
  if (with_rope) maps.rope = map_of(call.q_pe, call.q_pe_stride, params.rope_columns);
  return maps;
}

/// Tensor maps of the cache, where its pages are not copied token by token. `boxes`: latent boxes of a copy where a tile is one page.
CacheTensorMaps cache_maps(DenseDecodeKernel const& kernel, DenseDecodeParams const& params, uint32_t boxes,
                           CUtensorMapL2promotion fetches) {
  CacheGeometry const cache = cache_of(params, kernel.latent);
  if (kernel.paging == Paging::kRows) {
    check_cache_geometry(cache);
    return {};
  }
  auto const half_boxes = static_cast<uint32_t>(kernel.latent) / kBoxColumns / 2;
  if (kernel.roles == Roles::kScoring && kernel.paging == Paging::kBoxes)
    return make_page_tensor_maps(cache, half_boxes, fetches, kernel.kv_dtype);
  CacheBox const box = kernel.paging == Paging::kTiles ? CacheBox{kTileTokens, boxes, fetches} : CacheBox{8, half_boxes, fetches};
  return make_cache_tensor_maps(cache, box, kernel.kv_dtype);
}

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

void prepare_dense_decode(DenseDecodeKernel const& kernel) {
  Instance const instance = instance_of(kernel);
  check_cuda(cudaFuncSetAttribute(instance.function, cudaFuncAttributeMaxDynamicSharedMemorySize, instance.shared_bytes), "plan",
             "cudaFuncSetAttribute");
  if (kernel.calls == Calls::kAny) load_kernel("plan", merge_for(kernel));
}

void launch_dense_decode(DenseDecodeKernel const& kernel, DenseDecodeParams const& params, flashmla_stream stream) {
  DenseDecodeParams launched = params;
  core::DecodeCall const& call = params.call;
  launched.out_dtype = kernel.out_dtype;
  launched.q_is_aligned = is_multiple(call.q_nope, call.q_nope_stride, 2, 16) && is_multiple(call.q_pe, call.q_pe_stride, 2, 16);
  launched.out_alignment = 0;
  for (int32_t const bytes : {8, 16})
    if (is_multiple(call.out, call.out_stride, bytes_of(kernel.out_dtype), bytes)) launched.out_alignment = bytes;
  // -inf * 0 is NaN: a scale of 0 becomes one that leaves every score at 0 and every masked one at -inf.
  if (launched.scale_log2 == 0.0F) launched.scale_log2 = 1e-30F;
  bool const is_scored = kernel.roles == Roles::kScoring, is_transposed = kernel.roles == Roles::kTransposed;
  bool const is_paired = runs_in_pairs(is_short_call(num_items(params), params.max_workers), params.start.group);
  CUtensorMapL2promotion const fetches = fetches_wide(kernel.paging, kernel.roles, is_paired, params.start.group)
                                             ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B
                                             : CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
  QueryMaps const q = set_query(launched, kernel, fetches, is_scored || is_transposed);
  auto const half_boxes = static_cast<uint32_t>(kernel.latent) / kBoxColumns / 2;
  CacheTensorMaps const cache = cache_maps(kernel, params, is_scored || is_transposed ? half_boxes : half_boxes / 2, fetches);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.start.group), static_cast<unsigned>(params.max_workers));
  Instance const instance = instance_of(kernel);
  config.blockDim = static_cast<unsigned>(instance.threads);
  config.dynamicSmemBytes = static_cast<size_t>(instance.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = 2, attributes[1].val.clusterDim.y = 1, attributes[1].val.clusterDim.z = 1;
  config.attrs = attributes;
  config.numAttrs = is_paired ? 2 : 1;
  cudaError_t const status =
      is_transposed ? cudaLaunchKernelEx(&config, transposed_kernel_for(kernel),
                                         dense_decode::transposed::TensorMaps{cache.latent, cache.rope, q.latent, q.rope}, launched)
      : is_scored   ? cudaLaunchKernelEx(&config, scored_kernel_for(kernel),
                                         dense_decode::scored::TensorMaps{cache.latent, cache.rope, q.latent, q.rope}, launched)
                  : cudaLaunchKernelEx(&config, kernel_for(kernel), dense_decode::TensorMaps{cache.latent, cache.rope, q.latent}, launched);
  check_cuda(status, "decode", "cudaLaunchKernelEx(dense_decode)");
  if (!params.start.is_chunked || params.max_chunks == 1) return;
  int64_t const blocks =
      std::min(core::ceil_div(dense_decode::num_merge_rows(params), dense_decode::kMergeWarps), dense_decode::kMergeBlocks);
  LaunchShape const merge{static_cast<unsigned>(blocks), dense_decode::kMergeWarps * 32, 0, config.stream};
  launch_overlapped("decode", merge_for(kernel), merge, launched);
}

std::string describe_dense_decode(DenseDecodeKernel const& kernel) {
  Instance const instance = instance_of(kernel);
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, instance.function), "plan", "cudaFuncGetAttributes");
  std::string how, registers;
  int rows = kCtaRows;
  if (kernel.roles == Roles::kTransposed) {
    how = "keys as rows of the products", registers = std::to_string(attributes.numRegs) + " a thread";
    rows = dense_decode::transposed::kRows;
  } else if (kernel.roles == Roles::kScoring) {
    how = "a score warpgroup";
    registers = std::to_string(dense_decode::scored::kScoreRegisters) + " a scorer, " +
                std::to_string(dense_decode::scored::kOutputRegisters) + " an output thread";
  } else {
    how = kernel.paging == Paging::kTiles ? "a tile a copy" : kernel.paging == Paging::kBoxes ? "part of a page a copy" : "a token a copy";
    bool const is_narrow = kernel.latent == 256;
    int const consumer = is_narrow ? dense_decode::kConsumerRegisters<256> : dense_decode::kConsumerRegisters<512>;
    int const producer = is_narrow ? dense_decode::kProducerRegisters<256> : dense_decode::kProducerRegisters<512>;
    registers = std::to_string(consumer) + " a consumer, " + std::to_string(producer) + " a producer";
  }
  return "dense_decode: " + std::to_string(rows) + " rows x 64 tokens a CTA, " + how + ", " + std::to_string(instance.threads) +
         " threads, " + std::to_string(attributes.numRegs) + " registers at launch (" + registers + "), " +
         std::to_string(instance.shared_bytes) + " bytes of shared memory, " + std::to_string(attributes.localSizeBytes) +
         " bytes of stack";
}

}  // namespace flashmla::cuda
