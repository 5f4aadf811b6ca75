// Encodes tensor maps through the driver's encoder, found once at run time.
#include "cuda/tensor_map.hpp"

#include <atomic>
#include <sstream>
#include <string>

#include "cuda/errors.hpp"

namespace flashmla::cuda {
namespace {

constexpr int64_t kAlignment = 16;                  // bytes, of a tensor's base and strides
constexpr int64_t kStrideLimit = int64_t{1} << 40;  // bytes
constexpr int64_t kElementBytes = 2;
constexpr int64_t kLatentBoxes = 8;  // 512 columns
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

// Spec: cache base and page stride are named together, since a caller who pads pages has to fix one of them.
void check_alignment(void const* base, int64_t page_stride_bytes, int64_t token_stride_bytes) {
  auto const misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(base) % kAlignment);
  if (misplaced == 0 && page_stride_bytes % kAlignment == 0 && token_stride_bytes % kAlignment == 0) return;
  std::ostringstream text;
  text << "decode: cache: got base at byte " << misplaced << " of 16, page stride " << page_stride_bytes << " bytes, token stride "
       << token_stride_bytes << " bytes, expected multiples of 16 bytes (tensor copies on Hopper)";
  throw core::Error(FLASHMLA_INVALID_ARGUMENT, text.str());
}

void check_range(int64_t page_stride_bytes, int64_t token_stride_bytes) {
  if (page_stride_bytes > 0 && page_stride_bytes < kStrideLimit && token_stride_bytes > 0 && token_stride_bytes < kStrideLimit) return;
  std::ostringstream text;
  text << "decode: cache: got page stride " << page_stride_bytes << " bytes, token stride " << token_stride_bytes
       << " bytes, expected 16 .. " << kStrideLimit - kAlignment << " (tensor copies on Hopper)";
  throw core::Error(FLASHMLA_INVALID_ARGUMENT, text.str());
}

/// {64 columns, rows, boxes of 64 columns, outer} of 2-byte elements with strides in bytes, swizzled by 128 bytes.
struct Tensor {
  char const* name;
  void const* base;
  int64_t rows, boxes, outer;
  int64_t row_stride_bytes, outer_stride_bytes;
  uint32_t boxes_per_copy;
};

CUtensorMap encode(Tensor const& tensor, flashmla_dtype dtype) {
  cuuint64_t const sizes[4] = {kBoxColumns, static_cast<cuuint64_t>(tensor.rows), static_cast<cuuint64_t>(tensor.boxes),
                               static_cast<cuuint64_t>(tensor.outer)};
  cuuint64_t const strides[3] = {static_cast<cuuint64_t>(tensor.row_stride_bytes), kBoxColumns * kElementBytes,
                                 static_cast<cuuint64_t>(tensor.outer_stride_bytes)};
  cuuint32_t const box[4] = {kBoxColumns, kBoxRows, tensor.boxes_per_copy, 1};
  cuuint32_t const element_strides[4] = {1, 1, 1, 1};
  CUtensorMapDataType const type = dtype == FLASHMLA_FP16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map{};
  CUresult const result =
      find_encoder()(&map, type, 4, const_cast<void*>(tensor.base), sizes, strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return map;
  std::ostringstream text;
  text << "decode: " << tensor.name << ": got CUresult " << static_cast<int>(result) << " from cuTensorMapEncodeTiled, expected 0 ("
       << tensor.outer << " x " << tensor.rows << " rows, strides " << tensor.outer_stride_bytes << " and " << tensor.row_stride_bytes
       << " bytes)";
  throw core::Error(FLASHMLA_DEVICE_ERROR, text.str());
}

}  // namespace

CacheTensorMaps make_cache_tensor_maps(void const* base, int64_t num_pages, int64_t page_stride, int64_t token_stride,
                                       flashmla_dtype dtype) {
  int64_t const token_stride_bytes = token_stride * kElementBytes;
  // The stride of a dimension of one page (or none) is never used and may be anything.
  int64_t const page_stride_bytes = num_pages > 1 ? page_stride * kElementBytes : token_stride_bytes * kBoxRows;
  check_alignment(base, page_stride_bytes, token_stride_bytes);
  check_range(page_stride_bytes, token_stride_bytes);
  char const* const latent = num_pages > 0 ? static_cast<char const*>(base) : reinterpret_cast<char const*>(kNowhere);
  int64_t const pages = num_pages > 0 ? num_pages : 1;
  return {
      encode({"cache", latent, kBoxRows, kLatentBoxes, pages, token_stride_bytes, page_stride_bytes, kCacheBoxesPerCopy}, dtype),
      encode({"cache", latent + kLatentBoxes * kBoxColumns * kElementBytes, kBoxRows, 1, pages, token_stride_bytes, page_stride_bytes, 1},
             dtype)};
}

CUtensorMap make_query_tensor_map(void const* base, int64_t rows, int64_t row_stride, int64_t batch, int64_t batch_stride,
                                  flashmla_dtype dtype) {
  // As above for a single row or request.
  int64_t const row_stride_bytes = (rows > 1 ? row_stride : kLatentBoxes * kBoxColumns) * kElementBytes;
  int64_t const batch_stride_bytes = batch > 1 ? batch_stride * kElementBytes : row_stride_bytes * rows;
  return encode({"q", base, rows, kLatentBoxes, batch, row_stride_bytes, batch_stride_bytes, kQueryBoxesPerCopy}, dtype);
}

}  // namespace flashmla::cuda
