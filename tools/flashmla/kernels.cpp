// flashmla kernels: the kernel table, in the order in which plans try its rows.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/flashmla/command.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

char const* backend_name(KernelInfo const& info) { return info.device_kind == FLASHMLA_CPU ? "cpu" : "cuda"; }

void print_json() {
  nlohmann::json rows = nlohmann::json::array();
  for (auto const& info : kernels()) {
    rows.push_back({{"name", info.name},
                    {"backend", backend_name(info)},
                    {"isa", info.device_kind == FLASHMLA_CPU ? isa_name(info.isa) : ""},
                    {"usable", info.usable != 0},
                    {"serves", info.serves},
                    {"reason", info.reason}});
  }
  std::cout << nlohmann::json{{"kernels", rows}}.dump(2) << "\n";
}

int run_kernels(bool json) {
  if (json) {
    print_json();
    return kExitOk;
  }
  Table table;
  for (char const* const title : {"kernel", "backend", "usable", "serves"}) table.column(title, Table::Align::kLeft);
  for (auto const& info : kernels()) {
    std::string const usable = info.usable != 0 ? "yes" : std::string("no: ") + info.reason;
    table.row({info.name, backend_name(info), usable, info.serves});
  }
  std::cout << table.str();
  return kExitOk;
}

}  // namespace

void add_kernels(CLI::App& app, Action& chosen) {
  CLI::App* const command = app.add_subcommand("kernels", "The kernel table: what each row serves and whether this machine can run it");
  auto const json = std::make_shared<bool>(false);
  add_json_flag(*command, *json);
  command->callback([&chosen, json] { chosen = [json] { return run_kernels(*json); }; });
}

}  // namespace flashmla::tools
