// Options that several subcommands share: see command.hpp.
#include "tools/flashmla/command.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string>

#include "tools/flashmla/text.hpp"

namespace flashmla::tools {

void add_backend_options(CLI::App& command, BackendOptions& options) {
  command.add_option("--backend", options.backend, "auto (a usable CUDA device, or else the CPU), cpu or cuda")->capture_default_str();
  command.add_option("--device", options.device, "CUDA ordinal")->check(whole_number(0, 1023))->capture_default_str();
  command.add_option("--isa", options.isa, "CPU: auto, or one that `flashmla kernels` lists, e.g. portable")->capture_default_str();
  command.add_option("--threads,--workers", options.threads, "CPU: threads; 0 takes every core this process may use")
      ->check(whole_number(0, 4096))
      ->capture_default_str();
}

CLI::Validator whole_number(int64_t least, int64_t most) {
  auto const check = [=](std::string const& text) -> std::string {
    int64_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    bool const is_number = error == std::errc() && end == text.data() + text.size();
    // CLI11 reads what begins with 0 as octal: 010 would be 8.
    if (is_number && std::to_string(value) != text) return format("got '%s', expected a decimal without leading zeros", text.c_str());
    if (is_number && value >= least && value <= most) return "";
    return format("got '%s', expected a whole number in [%lld, %lld]", text.c_str(), static_cast<long long>(least),
                  static_cast<long long>(most));
  };
  return CLI::Validator(check, "");
}

CLI::Validator number_from(double least) {
  auto const check = [=](std::string const& text) -> std::string {
    char* end = nullptr;
    double const value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && std::isfinite(value) && value >= least) return "";
    return format("got '%s', expected a number of at least %g", text.c_str(), least);
  };
  return CLI::Validator(check, "");
}

void add_json_flag(CLI::App& command, bool& json) { command.add_flag("--json", json, "print one JSON object instead of text"); }

}  // namespace flashmla::tools
