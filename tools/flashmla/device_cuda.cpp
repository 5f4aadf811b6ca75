// A CUDA device: see device.hpp. Only the runtime's host API is used, so that an ordinary C++ compiler builds it.
#include <cuda_runtime_api.h>

#include <new>
#include <stdexcept>
#include <string>

#include "tools/flashmla/device.hpp"
#include "tools/flashmla/read_probe.hpp"

namespace flashmla::tools {
namespace {

void check(cudaError_t error, char const* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // a failure is reported once
  throw std::runtime_error(std::string("device: ") + call + ": " + cudaGetErrorString(error));
}

class CudaMeasurement final : public Measurement {
 public:
  CudaMeasurement(cudaStream_t stream, int calls, std::function<void(int)> const& enqueue) : stream_(stream), calls_(calls) {
    try {
      capture(enqueue);
      check(cudaEventCreate(&begin_), "cudaEventCreate");
      check(cudaEventCreate(&end_), "cudaEventCreate");
      check(cudaGraphUpload(executable_, stream_), "cudaGraphUpload");
    } catch (...) {
      destroy();
      throw;
    }
  }
  ~CudaMeasurement() override { destroy(); }
  CudaMeasurement(CudaMeasurement const&) = delete;
  CudaMeasurement& operator=(CudaMeasurement const&) = delete;

  double seconds_per_call() override {
    check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    check(cudaGraphLaunch(executable_, stream_), "cudaGraphLaunch");
    check(cudaEventRecord(end_, stream_), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e-3 / calls_;
  }

 private:
  void capture(std::function<void(int)> const& enqueue) {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      for (int i = 0; i < calls_; ++i) enqueue(i);
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph_);  // the stream must leave capture even so
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph_), "cudaStreamEndCapture");
    check(cudaGraphInstantiateWithFlags(&executable_, graph_, 0), "cudaGraphInstantiateWithFlags");
  }

  void destroy() noexcept {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }

  cudaStream_t stream_;
  int calls_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class CudaContext final : public DeviceContext {
 public:
  explicit CudaContext(int ordinal) : ordinal_(ordinal) {
    check(cudaSetDevice(ordinal), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    sink_ = static_cast<int*>(allocate(sizeof(int)));
  }
  ~CudaContext() override {
    release(sink_);
    cudaStreamDestroy(stream_);
  }

  [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CUDA, ordinal_}; }
  [[nodiscard]] flashmla_stream stream() const override { return stream_; }
  [[nodiscard]] bool host_accessible() const override { return false; }

  [[nodiscard]] int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  [[nodiscard]] int64_t cold_bytes() const override {
    int l2_bytes = 0;
    check(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, ordinal_), "cudaDeviceGetAttribute");
    return 6 * static_cast<int64_t>(l2_bytes);
  }

  [[nodiscard]] void* allocate(size_t bytes) override {
    void* data = nullptr;
    cudaError_t const error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw std::bad_alloc();
    }
    check(error, "cudaMalloc");
    return data;
  }
  void release(void* memory) noexcept override { cudaFree(memory); }

  void copy_in(void* to, void const* host, size_t bytes) override {
    check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    synchronize();
  }
  void copy(void* to, void const* from, size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "cudaMemcpyAsync");
  }
  void read(void const* from, size_t bytes) override {
    launch_read_probe(from, bytes, sink_, stream_);
    check(cudaGetLastError(), "read_probe");
  }
  void copy_out(void* host, void const* from, size_t bytes) override {
    check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    synchronize();
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

  [[nodiscard]] std::unique_ptr<Measurement> measure(int calls, std::function<void(int)> const& enqueue) override {
    return std::make_unique<CudaMeasurement>(stream_, calls, enqueue);
  }

 private:
  int ordinal_;
  cudaStream_t stream_ = nullptr;
  int* sink_ = nullptr;  // of read_probe
};

}  // namespace

std::unique_ptr<DeviceContext> open_cuda_device(int ordinal) { return std::make_unique<CudaContext>(ordinal); }

}  // namespace flashmla::tools
