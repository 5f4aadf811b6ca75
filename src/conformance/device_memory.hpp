// Where a case keeps its tensors. The host implementation is here; whoever tests a GPU supplies another, so that
// conformance itself needs no CUDA header.
#pragma once

#include <flashmla/flashmla.h>

#include <cstddef>
#include <memory>

namespace flashmla::conformance {

/// Memory of one device, and the stream on which a case runs. Used by one thread. Functions throw on failure.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  [[nodiscard]] virtual flashmla_device device() const = 0;
  [[nodiscard]] virtual flashmla_stream stream() const = 0;
  /// True when the host may read and write the memory directly: then no copies are made.
  [[nodiscard]] virtual bool host_accessible() const = 0;
  /// 256-byte aligned; contents are arbitrary.
  [[nodiscard]] virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// Both are ordered after all work on `stream()` and complete on return.
  virtual void copy_in(void* device, void const* host, size_t bytes) = 0;
  virtual void copy_out(void* host, void const* device, size_t bytes) = 0;
  /// Every byte becomes `byte`, in the order of `stream()`.
  virtual void fill(void* device, int byte, size_t bytes);
};

std::unique_ptr<DeviceMemory> make_host_memory();

}  // namespace flashmla::conformance
