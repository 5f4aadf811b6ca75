// Memory of one tensor, poisoned: every byte starts as 0xff, which is NaN in each float format and -1 in each integer,
// with a guard zone of the same before and after. What a kernel reads by mistake shows up as NaN; what it writes by
// mistake, in the guards.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>

#include "conformance/device_memory.hpp"

namespace flashmla::conformance {

/// What the host keeps a copy of, where it does not reach the device's memory.
enum class Mirror {
  kWhole,
  kGuards,  // for large buffers whose payload is nobody's but the library's: `host` and `upload` are not for these
};

class Buffer {
 public:
  Buffer() = default;
  Buffer(DeviceMemory& memory, size_t bytes, Mirror mirror = Mirror::kWhole);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] void* device() const;
  /// The host's side: the same memory where the host reaches it, else a copy that `upload` and `download` move.
  template <class T = std::byte>
  [[nodiscard]] T* host() const {
    return reinterpret_cast<T*>(host_base() + kGuardBytes);
  }
  void upload();
  void download();
  /// Poisons the payload and the guards, on both sides.
  void poison();
  /// After a download: nobody wrote before or behind the payload.
  [[nodiscard]] bool guards_intact() const;

 private:
  static constexpr size_t kGuardBytes = 256;
  [[nodiscard]] size_t total_bytes() const { return bytes_ + 2 * kGuardBytes; }
  [[nodiscard]] std::byte* host_base() const { return mirror_ ? mirror_.get() : static_cast<std::byte*>(base_); }
  [[nodiscard]] bool has_payload() const { return mirror_ == nullptr || kind_ == Mirror::kWhole; }  // on the host
  [[nodiscard]] size_t host_bytes() const { return has_payload() ? total_bytes() : 2 * kGuardBytes; }
  [[nodiscard]] std::byte* back_guard() const { return host_base() + host_bytes() - kGuardBytes; }

  DeviceMemory* memory_ = nullptr;
  Mirror kind_ = Mirror::kWhole;
  size_t bytes_ = 0;
  void* base_ = nullptr;                 // on the device, guard included
  std::unique_ptr<std::byte[]> mirror_;  // on the host, guard included; null where the host reaches the device's memory
};

/// A view of `data`; sizes and strides in elements, rank from their number.
flashmla_view make_view(void* data, flashmla_dtype dtype, flashmla_device device, std::initializer_list<int64_t> sizes,
                        std::initializer_list<int64_t> strides);

/// A view of a whole buffer as bytes, as schedules and workspaces are passed.
flashmla_view byte_view(Buffer const& buffer, flashmla_device device);

}  // namespace flashmla::conformance
