// What the programs that run on a GPU share: checks, owned device memory, random numbers, and the way out without a GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "cuda/backend.hpp"

namespace flashmla::test {

inline void check_call(cudaError_t status, char const* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status));
}

/// Owned device memory, contents arbitrary.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t count) : count_(count) { check_call(cudaMalloc(&data_, (count > 0 ? count : 1) * sizeof(T)), "cudaMalloc"); }
  explicit DeviceArray(std::vector<T> const& values) : DeviceArray(values.size()) { upload(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(DeviceArray&& other) noexcept : data_(other.data_), count_(other.count_) { other.data_ = nullptr, other.count_ = 0; }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  [[nodiscard]] T* get() const { return data_; }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] size_t bytes() const { return count_ * sizeof(T); }
  void upload(std::vector<T> const& values) {
    check_call(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> values(count_);
    check_call(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
  void fill(int byte) { check_call(cudaMemset(data_, byte, bytes()), "cudaMemset"); }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

/// `count` BF16 or FP16 numbers, normally distributed with deviation `std`: a random block of 2^20, shifted by the seed and
/// repeated. Used by one thread.
void fill_normal(void* device, size_t count, bool is_fp16, float std, uint64_t seed);

/// A graph made of what `enqueue` puts on the stream.
class Graph {
 public:
  Graph() = default;
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }
  Graph(Graph const&) = delete;
  Graph& operator=(Graph const&) = delete;
  template <class Enqueue>
  void capture(cudaStream_t stream, Enqueue enqueue, cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal) {
    cudaGraph_t graph = nullptr;
    check_call(cudaStreamBeginCapture(stream, mode), "cudaStreamBeginCapture");
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check_call(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_call(cudaGraphInstantiate(&exec_, graph, 0), "cudaGraphInstantiate");
    check_call(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  void replay(cudaStream_t stream) const { check_call(cudaGraphLaunch(exec_, stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

/// Empty when device 0 can run the kernels, else why not.
inline std::string missing_gpu() {
  std::vector<core::DeviceRow> const rows = cuda::make_backend()->devices();
  if (rows.empty()) return cuda::driver().reason;
  return rows[0].reason;
}

/// Runs `body` and turns its outcome into an exit code: 0 also where there is no usable GPU, which is said.
template <class Body>
int run_on_gpu(char const* program, Body body) {
  if (std::string const reason = missing_gpu(); !reason.empty()) {
    std::printf("%s: skipped: %s\n", program, reason.c_str());
    return 0;
  }
  try {
    return body();
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: FAILED: %s\n", program, error.what());
    return 1;
  }
}

}  // namespace flashmla::test
