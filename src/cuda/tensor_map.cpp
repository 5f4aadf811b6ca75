// Encodes tensor maps through the driver's encoder, found once at run time.
#include "cuda/tensor_map.hpp"

#include <algorithm>
#include <atomic>
#include <sstream>
#include <string>

#include "core/planner.hpp"
#include "cuda/errors.hpp"

namespace flashmla::cuda {
namespace {

constexpr int64_t kAlignment = 16;                  // bytes, of a tensor's base and strides
constexpr int64_t kStrideLimit = int64_t{1} << 40;  // bytes
constexpr int64_t kElementBytes = 2;
constexpr uintptr_t kNowhere = 256;  // base of a cache without pages, which nothing reads

using Encoder = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, cuuint64_t const*, cuuint64_t const*, cuuint32_t const*,
                             cuuint32_t const*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Only a success is remembered, so that a process that starts before its driver does is not stuck with the first answer.
Encoder find_encoder() {
  static std::atomic<void*> found{nullptr};
  void* symbol = found.load(std::memory_order_acquire);
  if (symbol != nullptr) return reinterpret_cast<Encoder>(symbol);
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  cudaError_t const status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &result);
#else
  cudaError_t const status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &symbol, cudaEnableDefault, &result);
#endif
  check_cuda(status, "decode", "cudaGetDriverEntryPoint");
  if (result != cudaDriverEntryPointSuccess || symbol == nullptr)
    throw core::Error(FLASHMLA_UNSUPPORTED, "decode: driver: got one without cuTensorMapEncodeTiled, expected CUDA 12.0 or newer");
  found.store(symbol, std::memory_order_release);
  return reinterpret_cast<Encoder>(symbol);
}

/// A part of a cache in bytes. The stride of a dimension of one page or head (or none) is never used and may be anything.
struct PartBytes {
  char const* name;
  char const* base;
  int64_t page_stride, token_stride, head_stride;
  int64_t columns;
};

PartBytes bytes_of(CacheGeometry const& cache, CacheGeometry::Part const& part, char const* name) {
  int64_t const token = part.token_stride * kElementBytes;
  char const* const base = cache.num_pages > 0 ? static_cast<char const*>(part.base) : reinterpret_cast<char const*>(kNowhere);
  return {name,
          base,
          cache.num_pages > 1 ? part.page_stride * kElementBytes : token * cache.page_tokens,
          token,
          cache.heads > 1 ? part.head_stride * kElementBytes : token,
          part.columns};
}

// Spec: cache base and page stride are named together, since a caller who pads pages has to fix one of them.
std::string text_of(PartBytes const& part) {
  std::ostringstream text;
  text << "page stride " << part.page_stride << " bytes, token stride " << part.token_stride << " bytes";
  if (part.head_stride != part.token_stride) text << ", head stride " << part.head_stride << " bytes";
  return text.str();
}

void check_part(PartBytes const& part) {
  auto const misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(part.base) % kAlignment);
  int64_t const strides[] = {part.page_stride, part.token_stride, part.head_stride};
  bool is_aligned = misplaced == 0, is_in_range = true;
  for (int64_t const stride : strides) {
    is_aligned = is_aligned && stride % kAlignment == 0;
    is_in_range = is_in_range && stride > 0 && stride < kStrideLimit;
  }
  if (is_aligned && is_in_range) return;
  std::ostringstream text;
  text << "decode: " << part.name << ": got ";
  if (is_aligned) text << text_of(part) << ", expected 16 .. " << kStrideLimit - kAlignment << " (copies to shared memory on Hopper)";
  else
    text << "base at byte " << misplaced << " of 16, " << text_of(part)
         << ", expected multiples of 16 bytes (copies to shared memory on Hopper)";
  throw core::Error(FLASHMLA_INVALID_ARGUMENT, text.str());
}

/// {64 columns, rows, boxes of 64 columns, heads, outer} of 2-byte elements with strides in bytes, swizzled by 128 bytes. Columns that
/// a box has beyond them all are filled with zeros.
struct Tensor {
  char const* name;
  void const* base;
  int64_t columns;  // all of them
  int64_t rows, heads, outer;
  int64_t row_stride, head_stride, outer_stride;
  uint32_t box_rows, boxes_per_copy;
  CUtensorMapL2promotion fetches;
  uint32_t heads_per_copy = 1;
};

CUtensorMap encode(Tensor const& tensor, flashmla_dtype dtype) {
  int64_t const columns = std::min<int64_t>(tensor.columns, kBoxColumns), boxes = core::ceil_div(tensor.columns, kBoxColumns);
  cuuint64_t const sizes[5] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(tensor.rows), static_cast<cuuint64_t>(boxes),
                               static_cast<cuuint64_t>(tensor.heads), static_cast<cuuint64_t>(tensor.outer)};
  cuuint64_t const strides[4] = {static_cast<cuuint64_t>(tensor.row_stride), kBoxColumns * kElementBytes,
                                 static_cast<cuuint64_t>(tensor.head_stride), static_cast<cuuint64_t>(tensor.outer_stride)};
  cuuint32_t const box[5] = {kBoxColumns, tensor.box_rows, tensor.boxes_per_copy, tensor.heads_per_copy, 1};
  cuuint32_t const element_strides[5] = {1, 1, 1, 1, 1};
  CUtensorMapDataType const type = dtype == FLASHMLA_FP16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map{};
  CUresult const result =
      find_encoder()(&map, type, 5, const_cast<void*>(tensor.base), sizes, strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
                     CU_TENSOR_MAP_SWIZZLE_128B, tensor.fetches, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return map;
  std::ostringstream text;
  text << "decode: " << tensor.name << ": got CUresult " << static_cast<int>(result) << " from cuTensorMapEncodeTiled, expected 0 ("
       << tensor.outer << " x " << tensor.heads << " x " << tensor.rows << " rows, strides " << tensor.outer_stride << ", "
       << tensor.head_stride << " and " << tensor.row_stride << " bytes)";
  throw core::Error(FLASHMLA_DEVICE_ERROR, text.str());
}

PartBytes latent_of(CacheGeometry const& cache) { return bytes_of(cache, cache.latent, cache.is_fused ? "cache" : "ckv"); }
PartBytes rope_of(CacheGeometry const& cache) { return bytes_of(cache, cache.rope, cache.is_fused ? "cache" : "kpe"); }

}  // namespace

void check_cache_geometry(CacheGeometry const& cache) {
  check_part(latent_of(cache));
  check_part(rope_of(cache));
}

CacheTensorMaps make_cache_tensor_maps(CacheGeometry const& cache, CacheBox box, flashmla_dtype dtype) {
  check_cache_geometry(cache);
  PartBytes const latent = latent_of(cache), rope = rope_of(cache);
  int64_t const pages = cache.num_pages > 0 ? cache.num_pages : 1;
  auto const map_of = [&](PartBytes const& part, uint32_t boxes_per_copy) {
    return encode({part.name, part.base, part.columns, cache.page_tokens, cache.heads, pages, part.token_stride, part.head_stride,
                   part.page_stride, box.tokens, boxes_per_copy, box.fetches},
                  dtype);
  };
  return {map_of(latent, box.boxes), map_of(rope, 1)};
}

CacheTensorMaps make_page_tensor_maps(CacheGeometry const& cache, uint32_t boxes, CUtensorMapL2promotion fetches, flashmla_dtype dtype) {
  constexpr uint32_t kAtomTokens = 8;
  check_cache_geometry(cache);
  PartBytes const latent = latent_of(cache), rope = rope_of(cache);
  int64_t const pages = cache.num_pages > 0 ? cache.num_pages : 1, atoms = cache.page_tokens / kAtomTokens;
  auto const map_of = [&](PartBytes const& part, uint32_t boxes_per_copy) {
    return encode({part.name, part.base, part.columns, kAtomTokens, atoms, pages, part.token_stride, kAtomTokens * part.token_stride,
                   part.page_stride, kAtomTokens, boxes_per_copy, fetches, static_cast<uint32_t>(atoms)},
                  dtype);
  };
  return {map_of(latent, boxes), map_of(rope, 1)};
}

CUtensorMap make_query_tensor_map(QueryGeometry const& q, flashmla_dtype dtype) {
  // As above for a single row or request.
  int64_t const row_stride = (q.rows > 1 ? q.row_stride : q.columns) * kElementBytes;
  int64_t const batch_stride = q.batch > 1 ? q.batch_stride * kElementBytes : row_stride * q.rows;
  auto const boxes = static_cast<uint32_t>(q.columns) / kBoxColumns;
  return encode({"q", q.base, q.columns, q.rows, 1, q.batch, row_stride, row_stride, batch_stride, q.box_rows, boxes, q.fetches}, dtype);
}

}  // namespace flashmla::cuda
