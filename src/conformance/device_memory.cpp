#include "conformance/device_memory.hpp"

#include <cstring>
#include <new>
#include <vector>

namespace flashmla::conformance {
namespace {

constexpr std::align_val_t kAlignment{256};

class HostMemory final : public DeviceMemory {
 public:
  [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CPU, 0}; }
  [[nodiscard]] flashmla_stream stream() const override { return nullptr; }
  [[nodiscard]] bool host_accessible() const override { return true; }
  [[nodiscard]] void* allocate(size_t bytes) override { return ::operator new(bytes, kAlignment); }
  void release(void* memory) noexcept override { ::operator delete(memory, kAlignment); }
  void copy_in(void* device, void const* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void copy_out(void* host, void const* device, size_t bytes) override { std::memcpy(host, device, bytes); }
  void fill(void* device, int byte, size_t bytes) override { std::memset(device, byte, bytes); }
};

}  // namespace

void DeviceMemory::fill(void* device, int byte, size_t bytes) {
  std::vector<char> const bytes_of(bytes, static_cast<char>(byte));
  copy_in(device, bytes_of.data(), bytes);
}

std::unique_ptr<DeviceMemory> make_host_memory() { return std::make_unique<HostMemory>(); }

}  // namespace flashmla::conformance
