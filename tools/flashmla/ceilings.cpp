// The limits of a device: see ceilings.hpp.
#include "tools/flashmla/ceilings.hpp"

#include <algorithm>

#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

// NVIDIA's data sheet of the H100 SXM, dense BF16. Its clocks under load reach about three quarters of it.
constexpr double kHopperFlopPerS = 989e12;
constexpr int64_t kReadBytes = int64_t{1} << 30;
constexpr int kReads = 4;

/// Bytes a second of a kernel that only reads device memory, as decoding nearly does.
double read_bytes_per_s(DeviceContext& device) {
  // Little is left beside large caches; what is left still exceeds what a cache of the chip holds.
  int64_t const bytes = std::clamp(device.free_bytes() / 4, int64_t{64} << 20, kReadBytes) / 16 * 16;
  Buffer const from(device, static_cast<size_t>(bytes));
  auto const measurement = device.measure(kReads, [&](int) { device.read(from.data(), from.bytes()); });
  double seconds = measurement->seconds_per_call();
  for (int round = 0; round < 4; ++round) seconds = std::min(seconds, measurement->seconds_per_call());
  return static_cast<double>(bytes) / seconds;
}

}  // namespace

Ceilings better_of(Ceilings const& a, Ceilings const& b) {
  return {std::max(a.bytes_per_s, b.bytes_per_s), std::max(a.flop_per_s, b.flop_per_s)};
}

Work& Work::operator+=(Work const& other) {
  flop += other.flop;
  bytes += other.bytes;
  return *this;
}

Work decode_work(int64_t batch, int64_t q_tokens, int64_t kv_tokens, int32_t heads, ElementType type) {
  double const rows = static_cast<double>(batch * q_tokens) * heads;
  double const tokens = static_cast<double>(kv_tokens), bytes = static_cast<double>(type.bytes());
  double const both = type.qk_dim + type.v_dim;
  return {2.0 * heads * static_cast<double>(q_tokens) * tokens * both, tokens * type.qk_dim * bytes + rows * both * bytes};
}

double floor_seconds(Work const& work, Ceilings const& ceilings) {
  return std::max(work.flop / ceilings.flop_per_s, work.bytes / ceilings.bytes_per_s);
}

CeilingProbe::CeilingProbe(DeviceContext& device, Target const& target, DType dtype)
    : device_(device), dtype_(dtype), isa_(chosen_isa(target)), threads_(num_threads(target)) {
  if (!cuda()) cpu_ = std::make_unique<bench::CpuProbe>(isa_, threads_);
}

Ceilings CeilingProbe::sample() {
  if (cuda()) {
    samples_.push_back({read_bytes_per_s(device_), kHopperFlopPerS});
  } else {
    bench::CpuCeilings const measured = cpu_->measure();
    samples_.push_back({measured.read_gbps * 1e9, (dtype_ != kBf16 ? measured.fp32_gflops : measured.gflops) * 1e9});
  }
  return samples_.back();
}

Ceilings CeilingProbe::best() const {
  Ceilings best;
  for (Ceilings const& sample : samples_) best = better_of(best, sample);
  return best;
}

std::string CeilingProbe::bandwidth_name() const {
  return cuda() ? "device memory read by a kernel, measured" : format("memory read by %d threads, measured", threads_);
}

std::string CeilingProbe::rate_name() const {
  if (cuda()) return "H100 SXM data sheet, dense BF16, not measured";
  char const* what = "float32 multiply-add";
  if ((isa_ == FLASHMLA_ISA_AVX512_BF16 || isa_ == FLASHMLA_ISA_NEON_BF16) && dtype_ == kBf16) what = "BF16 dot product";
  if (isa_ == FLASHMLA_ISA_AMX_BF16 && dtype_ == kBf16) what = "BF16 tile product";
  return format("%s peak of %d threads, %s, measured", what, threads_, isa_name(isa_));
}

}  // namespace flashmla::tools
