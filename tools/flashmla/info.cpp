// flashmla info: what this build is, and what it can use on this machine and why not the rest.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/flashmla/command.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

std::string cuda_version(int32_t version) { return version == 0 ? "none" : format("%d.%d", version / 1000, version % 1000 / 10); }

std::string capability(DeviceInfo const& info) {
  if (info.device.kind == FLASHMLA_CPU) return isa_name(info.capability);
  return format("sm_%d", info.capability);
}

nlohmann::json to_json(DeviceInfo const& info) {
  return {{"device", device_name(info.device)},
          {"name", info.name},
          {"usable", info.usable != 0},
          {"units", info.num_units},
          {"capability", capability(info)},
          {"memory_bytes", info.memory_bytes},
          {"reason", info.reason}};
}

nlohmann::json to_json(DriverInfo const& info) {
  return {{"built", info.built != 0},
          {"driver_found", cuda_version(info.found)},
          {"driver_needed", cuda_version(info.needed)},
          {"reason", info.reason}};
}

void print_json() {
  nlohmann::json out = {
      {"version", flashmla_version()}, {"abi", flashmla_abi_version()}, {"build", flashmla_build_info()}, {"cuda", to_json(driver())}};
  for (auto const& info : devices()) out["devices"].push_back(to_json(info));
  for (auto const& info : kernels()) out["kernels"].push_back({{"name", info.name}, {"usable", info.usable != 0}, {"reason", info.reason}});
  std::cout << out.dump(2) << "\n";
}

std::string device_table() {
  Table table;
  for (char const* const title : {"device", "usable"}) table.column(title, Table::Align::kLeft);
  table.column("units", Table::Align::kRight);
  table.column("best", Table::Align::kLeft);
  table.column("memory", Table::Align::kRight);
  table.column("name", Table::Align::kLeft);
  for (auto const& info : devices()) {
    std::string const why = info.usable != 0 ? "" : std::string(" (") + info.reason + ")";
    table.row({device_name(info.device), info.usable != 0 ? "yes" : "no", std::to_string(info.num_units), capability(info),
               format_bytes(static_cast<double>(info.memory_bytes)), info.name + why});
  }
  return table.str();
}

std::string kernel_table() {
  Table table;
  for (char const* const title : {"kernel", "usable", "why not"}) table.column(title, Table::Align::kLeft);
  for (auto const& info : kernels()) table.row({info.name, info.usable != 0 ? "yes" : "no", info.reason});
  return table.str();
}

std::string cuda_line(DriverInfo const& info) {
  if (info.built == 0) return "CUDA: left out of this build";
  std::string line = "CUDA: driver found " + cuda_version(info.found) + ", needed " + cuda_version(info.needed);
  if (info.reason[0] != '\0') line += std::string(" (") + info.reason + ")";
  return line;
}

int run_info(bool json) {
  if (json) {
    print_json();
    return kExitOk;
  }
  std::cout << "flashmla " << flashmla_version() << ", ABI " << flashmla_abi_version() << "\n"
            << "build: " << flashmla_build_info() << "\n"
            << cuda_line(driver()) << "\n\n"
            << device_table() << "\n"
            << kernel_table();
  return kExitOk;
}

}  // namespace

void add_info(CLI::App& app, Action& chosen) {
  CLI::App* const command = app.add_subcommand("info", "Devices, instruction sets and kernels: which are usable, and why not the others");
  auto const json = std::make_shared<bool>(false);
  add_json_flag(*command, *json);
  command->callback([&chosen, json] { chosen = [json] { return run_info(*json); }; });
}

}  // namespace flashmla::tools
