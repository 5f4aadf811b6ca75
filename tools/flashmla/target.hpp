// Where a command runs and on what numbers: words of the command line into the library's enumerators, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <flashmla/flashmla.hpp>
#include <string>

namespace flashmla::tools {

/// "cpu", "cuda:0".
[[nodiscard]] std::string device_name(Device device);
[[nodiscard]] char const* isa_name(int32_t isa);
/// Of the words above; throws UsageError.
[[nodiscard]] flashmla_isa parse_isa(std::string const& name);

/// What --dtype names: numbers, and the cache format that goes with them.
struct ElementType {
  DType dtype = kBf16;
  KvFormat format = kKvBf16_576;
  int32_t qk_dim = 576;  // numbers in a key
  int32_t v_dim = 512;   // of them in a value

  [[nodiscard]] constexpr int64_t bytes() const { return dtype == kFp32 ? 4 : 2; }
  [[nodiscard]] constexpr int64_t token_bytes() const { return qk_dim * bytes(); }
  /// Memory on the host is handled in words of 16 bits.
  [[nodiscard]] constexpr size_t words() const { return static_cast<size_t>(bytes()) / sizeof(uint16_t); }
};
/// "bf16", "fp16", "fp32", "bf16_320", "bf16_288".
[[nodiscard]] char const* dtype_name(ElementType type);
[[nodiscard]] ElementType parse_dtype(std::string const& name);
/// bf16 or fp16 with keys of 576 numbers, which is what caches that are served hold.
[[nodiscard]] ElementType parse_16_bit_dtype(std::string const& name);

/// --backend auto|cpu|cuda, --device, --isa, --threads.
struct BackendOptions {
  std::string backend = "auto";
  int device = 0;
  std::string isa = "auto";
  int threads = 0;
};

/// auto is the first usable CUDA device, or the CPU. Throws UsageError.
[[nodiscard]] Target parse_target(BackendOptions const& options);

/// The device's name and what of it is used: "AMD EPYC, 2 threads, avx512_bf16".
[[nodiscard]] std::string describe_target(Target const& target);
/// Threads that the CPU backend will use for this target.
[[nodiscard]] int num_threads(Target const& target);
/// The instruction set that the CPU backend will use for this target.
[[nodiscard]] flashmla_isa chosen_isa(Target const& target);

}  // namespace flashmla::tools
