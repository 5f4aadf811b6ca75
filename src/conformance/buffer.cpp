#include "conformance/buffer.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace flashmla::conformance {
namespace {

constexpr int kPoison = 0xff;

bool all_poison(std::byte const* data, size_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte b) { return b == std::byte{kPoison}; });
}

}  // namespace

Buffer::Buffer(DeviceMemory& memory, size_t bytes, Mirror mirror) : memory_(&memory), kind_(mirror), bytes_(bytes) {
  if (!memory.host_accessible())
    mirror_ = std::make_unique_for_overwrite<std::byte[]>(mirror == Mirror::kWhole ? total_bytes() : 2 * kGuardBytes);
  base_ = memory.allocate(total_bytes());
  poison();
}

Buffer::~Buffer() {
  if (base_) memory_->release(base_);
}

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(kind_, other.kind_);
  std::swap(bytes_, other.bytes_);
  std::swap(base_, other.base_);
  std::swap(mirror_, other.mirror_);
  return *this;
}

void* Buffer::device() const { return base_ ? static_cast<std::byte*>(base_) + kGuardBytes : nullptr; }

void Buffer::upload() {
  if (mirror_ && has_payload()) memory_->copy_in(base_, mirror_.get(), total_bytes());
}

void Buffer::download() {
  if (!mirror_) return;
  if (has_payload()) return memory_->copy_out(mirror_.get(), base_, total_bytes());
  memory_->copy_out(host_base(), base_, kGuardBytes);
  memory_->copy_out(back_guard(), static_cast<std::byte*>(base_) + kGuardBytes + bytes_, kGuardBytes);
}

void Buffer::poison() {
  std::memset(host_base(), kPoison, host_bytes());
  if (mirror_) memory_->fill(base_, kPoison, total_bytes());
}

bool Buffer::guards_intact() const { return all_poison(host_base(), kGuardBytes) && all_poison(back_guard(), kGuardBytes); }

flashmla_view make_view(void* data, flashmla_dtype dtype, flashmla_device device, std::initializer_list<int64_t> sizes,
                        std::initializer_list<int64_t> strides) {
  flashmla_view view{};
  view.data = data;
  view.dtype = dtype;
  view.rank = static_cast<int32_t>(sizes.size());
  view.device = device;
  std::copy(sizes.begin(), sizes.end(), view.size);
  std::copy(strides.begin(), strides.end(), view.stride);
  return view;
}

flashmla_view byte_view(Buffer const& buffer, flashmla_device device) {
  return make_view(buffer.device(), FLASHMLA_UINT8, device, {static_cast<int64_t>(buffer.bytes())}, {1});
}

}  // namespace flashmla::conformance
