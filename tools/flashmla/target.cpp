// Words of the command line into the library's enumerators, and back: see target.hpp.
#include "tools/flashmla/target.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr std::array<char const*, 8> kIsaNames = {"auto", "portable", "avx2", "avx512_bf16", "avx512f", "neon", "neon_bf16", "amx_bf16"};

struct NamedType {
  char const* name;
  ElementType type;
};
constexpr NamedType kElementTypes[] = {{"bf16", {kBf16, kKvBf16_576}},
                                       {"fp16", {kFp16, kKvFp16_576}},
                                       {"fp32", {kFp32, kKvFp32_576}},
                                       {"bf16_320", {kBf16, kKvBf16_320, 320, 256}},
                                       {"bf16_288", {kBf16, kKvBf16_288, 288, 256}}};

DeviceInfo const* find_device(std::vector<DeviceInfo> const& all, Device device) {
  auto const found = std::find_if(all.begin(), all.end(),
                                  [&](auto const& info) { return info.device.kind == device.kind && info.device.index == device.index; });
  return found == all.end() ? nullptr : &*found;
}

Device choose_device(BackendOptions const& options) {
  if (options.backend == "cpu") return kCpu;
  if (options.backend == "cuda") return cuda_device(options.device);
  if (options.backend != "auto") throw UsageError("--backend: got '" + options.backend + "', expected auto, cpu or cuda");
  auto const info = find_device(devices(), cuda_device(options.device));
  return info != nullptr && info->usable != 0 ? cuda_device(options.device) : kCpu;
}

}  // namespace

std::string device_name(Device device) { return device.kind == FLASHMLA_CPU ? "cpu" : format("cuda:%d", device.index); }

char const* isa_name(int32_t isa) {
  return isa >= 0 && isa < static_cast<int32_t>(kIsaNames.size()) ? kIsaNames[static_cast<size_t>(isa)] : "?";
}

flashmla_isa parse_isa(std::string const& name) {
  auto const found = std::find(kIsaNames.begin(), kIsaNames.end(), name);
  if (found == kIsaNames.end()) {
    std::string names;
    for (char const* const known : kIsaNames) names += (names.empty() ? "" : ", ") + std::string(known);
    throw UsageError("--isa: got '" + name + "', expected one of " + names);
  }
  return static_cast<flashmla_isa>(found - kIsaNames.begin());
}

char const* dtype_name(ElementType type) {
  for (auto const& [name, known] : kElementTypes)
    if (known.format == type.format) return name;
  return "?";
}

ElementType parse_dtype(std::string const& name) {
  for (auto const& [known, type] : kElementTypes)
    if (name == known) return type;
  throw UsageError("--dtype: got '" + name + "', expected bf16, fp16, fp32, bf16_320 or bf16_288");
}

ElementType parse_16_bit_dtype(std::string const& name) {
  ElementType const type = parse_dtype(name);
  if (name != "bf16" && name != "fp16") throw UsageError("--dtype: got '" + name + "', expected bf16 or fp16 (here)");
  return type;
}

Target parse_target(BackendOptions const& options) {
  Target target(choose_device(options));
  target.isa = parse_isa(options.isa);
  target.num_threads = options.threads;
  auto const all = devices();
  DeviceInfo const* const info = find_device(all, target.device);
  if (info == nullptr) {
    std::string const reason = driver().reason;
    throw UsageError(format("--backend: got %s, expected cpu or auto (%s)", device_name(target.device).c_str(),
                            reason.empty() ? "there is no such device" : reason.c_str()));
  }
  if (info->usable == 0)
    throw UsageError(format("--backend: got %s, expected a usable device (%s)", device_name(target.device).c_str(), info->reason));
  return target;
}

int num_threads(Target const& target) {
  if (target.num_threads > 0) return target.num_threads;
  auto const all = devices();
  DeviceInfo const* const info = find_device(all, kCpu);
  return info == nullptr ? 1 : std::max(1, info->num_units);
}

flashmla_isa chosen_isa(Target const& target) {
  if (target.isa != FLASHMLA_ISA_AUTO) return static_cast<flashmla_isa>(target.isa);
  auto const all = devices();
  DeviceInfo const* const info = find_device(all, kCpu);
  return info == nullptr ? FLASHMLA_ISA_PORTABLE : static_cast<flashmla_isa>(info->capability);
}

std::string describe_target(Target const& target) {
  auto const all = devices();
  DeviceInfo const* const info = find_device(all, target.device);
  std::string const name = info == nullptr ? device_name(target.device) : std::string(info->name);
  if (target.device.kind == FLASHMLA_CUDA) return device_name(target.device) + ", " + name;
  return format("cpu, %s, %d threads, %s", name.c_str(), num_threads(target), isa_name(chosen_isa(target)));
}

}  // namespace flashmla::tools
