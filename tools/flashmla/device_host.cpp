// The host as a device: see device.hpp. Everything is done when a call returns.
#include <chrono>
#include <cstring>
#include <utility>

#include "tools/flashmla/device.hpp"
#include "tools/flashmla/os.hpp"

namespace flashmla::tools {
namespace {

class HostMeasurement final : public Measurement {
 public:
  HostMeasurement(int calls, std::function<void(int)> enqueue) : calls_(calls), enqueue_(std::move(enqueue)) {}

  double seconds_per_call() override {
    auto const begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls_; ++i) enqueue_(i);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / calls_;
  }

 private:
  int calls_;
  std::function<void(int)> enqueue_;
};

class HostContext final : public DeviceContext {
 public:
  [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CPU, 0}; }
  [[nodiscard]] flashmla_stream stream() const override { return nullptr; }
  [[nodiscard]] bool host_accessible() const override { return true; }
  [[nodiscard]] int64_t free_bytes() const override { return available_memory_bytes(); }
  [[nodiscard]] int64_t cold_bytes() const override { return int64_t{256} << 20; }
  [[nodiscard]] void* allocate(size_t bytes) override { return allocate_memory(bytes); }
  void release(void* memory) noexcept override { release_memory(memory); }
  void copy_in(void* to, void const* host, size_t bytes) override { std::memcpy(to, host, bytes); }
  void copy(void* to, void const* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void read(void const* from, size_t bytes) override {
    unsigned sum = 0;
    for (size_t i = 0; i < bytes; ++i) sum += static_cast<unsigned char const*>(from)[i];
    sink_ = sum;
  }
  void copy_out(void* host, void const* from, size_t bytes) override { std::memcpy(host, from, bytes); }
  void synchronize() override {}

  [[nodiscard]] std::unique_ptr<Measurement> measure(int calls, std::function<void(int)> const& enqueue) override {
    return std::make_unique<HostMeasurement>(calls, enqueue);
  }

 private:
  unsigned volatile sink_ = 0;
};

}  // namespace

std::unique_ptr<DeviceContext> open_host_device() { return std::make_unique<HostContext>(); }

Buffer::Buffer(DeviceContext& device, size_t bytes) : device_(&device), data_(device.allocate(bytes)), bytes_(bytes) {}

void Buffer::reset() noexcept {
  if (data_ != nullptr) device_->release(data_);
  data_ = nullptr;
}

void Buffer::swap(Buffer& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
}

}  // namespace flashmla::tools
