// Options that several subcommands share: see command.hpp.
#include "tools/flashmla/command.hpp"

namespace flashmla::tools {

void add_backend_options(CLI::App& command, BackendOptions& options) {
  command.add_option("--backend", options.backend, "auto (a usable CUDA device, or else the CPU), cpu or cuda")->capture_default_str();
  command.add_option("--device", options.device, "CUDA ordinal")->check(CLI::NonNegativeNumber)->capture_default_str();
  command.add_option("--isa", options.isa, "CPU: auto, portable, avx2 or avx512_bf16")->capture_default_str();
  command.add_option("--threads,--workers", options.threads, "CPU: threads; 0 takes every core this process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_json_flag(CLI::App& command, bool& json) { command.add_flag("--json", json, "print one JSON object instead of text"); }

}  // namespace flashmla::tools
