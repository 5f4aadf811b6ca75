// The host's memory behind a wall: the suite must copy to see it, as on a GPU, and a test may tamper with what it sees.
#pragma once

#include <cstring>
#include <functional>
#include <memory>

#include "conformance/device_memory.hpp"

namespace flashmla::conformance::test {

class MirroredMemory final : public DeviceMemory {
 public:
  [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CPU, 0}; }
  [[nodiscard]] flashmla_stream stream() const override { return nullptr; }
  [[nodiscard]] bool host_accessible() const override { return false; }
  [[nodiscard]] void* allocate(size_t bytes) override {
    ++live;
    return host_->allocate(bytes);
  }
  void release(void* memory) noexcept override {
    --live;
    host_->release(memory);
  }
  void copy_in(void* device, void const* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void copy_out(void* host, void const* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
    if (tamper) tamper(static_cast<unsigned char*>(host), bytes, ++num_copies_out);
  }

  /// Called with a copy that just came out, guards included, and its number.
  std::function<void(unsigned char* host, size_t bytes, int copy)> tamper;
  int live = 0;  // allocations

 private:
  std::unique_ptr<DeviceMemory> host_ = make_host_memory();
  int num_copies_out = 0;
};

}  // namespace flashmla::conformance::test
