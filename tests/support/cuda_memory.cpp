#include "support/cuda_memory.hpp"

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace flashmla::test {
namespace {

void check(cudaError_t status, char const* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("memory: ") + call + ": " + cudaGetErrorString(status));
}

class CudaMemory final : public conformance::DeviceMemory {
 public:
  CudaMemory(int device, bool is_pooled) : device_(device), is_pooled_(is_pooled) {
    check(cudaSetDevice(device), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    uint64_t keep = UINT64_MAX;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
  }
  ~CudaMemory() override { cudaStreamDestroy(stream_); }
  CudaMemory(CudaMemory const&) = delete;
  CudaMemory& operator=(CudaMemory const&) = delete;

  [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CUDA, device_}; }
  [[nodiscard]] flashmla_stream stream() const override { return stream_; }
  [[nodiscard]] bool host_accessible() const override { return false; }

  [[nodiscard]] void* allocate(size_t bytes) override {
    void* memory = nullptr;
    if (is_pooled_) check(cudaMallocAsync(&memory, bytes, stream_), "cudaMallocAsync");
    else check(cudaMalloc(&memory, bytes), "cudaMalloc");
    return memory;
  }
  void release(void* memory) noexcept override {
    if (is_pooled_) cudaFreeAsync(memory, stream_);
    else cudaFree(memory);
  }
  void copy_in(void* device, void const* host, size_t bytes) override { copy(device, host, bytes, cudaMemcpyHostToDevice); }
  void copy_out(void* host, void const* device, size_t bytes) override { copy(host, device, bytes, cudaMemcpyDeviceToHost); }
  void fill(void* device, int byte, size_t bytes) override { check(cudaMemsetAsync(device, byte, bytes, stream_), "cudaMemsetAsync"); }

 private:
  void copy(void* to, void const* from, size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  int device_;
  bool is_pooled_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<conformance::DeviceMemory> make_cuda_memory(int device, bool is_pooled) {
  return std::make_unique<CudaMemory>(device, is_pooled);
}

}  // namespace flashmla::test
