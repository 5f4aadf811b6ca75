// HostBuffer: zeroed host memory aligned as schedules and workspaces of the CPU backend must be.
#pragma once

#include <cstddef>
#include <cstring>
#include <flashmla/view.hpp>
#include <memory>
#include <new>

namespace flashmla {

/// Owns `num_bytes` of memory, 256-byte aligned. Throws std::bad_alloc.
class HostBuffer {
 public:
  explicit HostBuffer(size_t num_bytes) : data_(::operator new(num_bytes, kAlign)), num_bytes_(num_bytes) {
    std::memset(data_.get(), 0, num_bytes);
  }

  [[nodiscard]] void* data() const noexcept { return data_.get(); }
  [[nodiscard]] size_t num_bytes() const noexcept { return num_bytes_; }
  [[nodiscard]] View view() const { return View::bytes(data_.get(), num_bytes_, kCpu); }

 private:
  static constexpr std::align_val_t kAlign{256};
  struct Release {
    void operator()(void* data) const noexcept { ::operator delete(data, kAlign); }
  };
  std::unique_ptr<void, Release> data_;
  size_t num_bytes_;
};

}  // namespace flashmla
