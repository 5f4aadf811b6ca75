// Memory, order and time on one device: what conformance asks for, and what measuring needs besides. The host and CUDA
// fill it in; commands see this only.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>
#include <functional>
#include <memory>

#include "conformance/device_memory.hpp"

namespace flashmla::tools {

class Measurement {
 public:
  virtual ~Measurement() = default;
  virtual double seconds_per_call() = 0;
};

class DeviceContext : public conformance::DeviceMemory {
 public:
  /// Bytes that could still be allocated; 0 when unknown.
  [[nodiscard]] virtual int64_t free_bytes() const = 0;
  /// Bytes that a benchmark must rotate over, so that no cache still holds what it reads.
  [[nodiscard]] virtual int64_t cold_bytes() const = 0;
  /// From this device to itself, enqueued on the stream.
  virtual void copy(void* to, void const* from, size_t bytes) = 0;
  /// Reads and drops `bytes` (a multiple of 16) of this device's memory, enqueued on the stream.
  virtual void read(void const* from, size_t bytes) = 0;
  virtual void synchronize() = 0;
  /// A measurement of `calls` calls enqueue(0), enqueue(1), ..., to be repeated. On CUDA they are captured into a graph
  /// here and replayed between two events, so that the host's cost is outside; on the host `enqueue` is kept and called.
  [[nodiscard]] virtual std::unique_ptr<Measurement> measure(int calls, std::function<void(int)> const& enqueue) = 0;
};

[[nodiscard]] std::unique_ptr<DeviceContext> open_host_device();
/// Throws UsageError in a build without CUDA, std::runtime_error when the device cannot be used.
[[nodiscard]] std::unique_ptr<DeviceContext> open_cuda_device(int ordinal);

/// Memory on a device for as long as this lives.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DeviceContext& device, size_t bytes);
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }

 private:
  void reset() noexcept;
  void swap(Buffer& other) noexcept;

  DeviceContext* device_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace flashmla::tools
