// Parses, runs and turns failures into exit codes: see command_line.hpp.
#include "tools/flashmla/command_line.hpp"

#include <algorithm>
#include <exception>
#include <flashmla/flashmla.hpp>
#include <iostream>
#include <new>
#include <string>

#include "tools/flashmla/errors.hpp"

namespace flashmla::tools {
namespace {

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

int fail(int code, std::string const& message) {
  std::cerr << "flashmla: " << one_line(message) << "\n";
  return code;
}

int parse_failed(CLI::App const& app, CLI::ParseError const& error) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  auto const named = app.get_subcommands();
  std::string const command = named.empty() ? "flashmla" : "flashmla " + named.front()->get_name();
  fail(kExitUsage, error.what());
  std::cerr << "Run '" << command << " --help' for its arguments.\n";
  return kExitUsage;
}

/// CLI11 says only that a subcommand is missing when a word is none.
void require_known_command(CLI::App const& app, int argc, char const* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::string names;
  for (CLI::App const* const command : app.get_subcommands([](CLI::App const*) { return true; })) {
    if (command->get_name() == argv[1]) return;
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  throw CLI::ParseError(std::string("command: got '") + argv[1] + "', expected one of " + names, kExitUsage);
}

}  // namespace

Request read_command_line(int argc, char const* const* argv) {
  CLI::App app("FlashMLA: Multi-head Latent Attention over a paged KV cache, on Hopper GPUs and any CPU.", "flashmla");
  app.set_version_flag("--version", std::string("flashmla ") + flashmla::version());
  app.require_subcommand(1);
  Request request;
  add_info(app, request.action);
  add_kernels(app, request.action);
  add_plan(app, request.action);
  add_check(app, request.action);
  add_bench(app, request.action);
  add_replay(app, request.action);
  try {
    require_known_command(app, argc, argv);
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    return {nullptr, parse_failed(app, error)};
  }
  return request;
}

int perform(Action const& action) {
  try {
    return action();
  } catch (UsageError const& error) {
    return fail(kExitUsage, error.what());
  } catch (flashmla::Error const& error) {
    bool const usage = error.status() == FLASHMLA_INVALID_ARGUMENT || error.status() == FLASHMLA_UNSUPPORTED;
    return fail(usage ? kExitUsage : kExitFailure, error.what());
  } catch (std::bad_alloc const&) {
    return fail(kExitFailure, "out of memory; ask for fewer pages, layers or requests");
  } catch (std::exception const& error) {
    return fail(kExitFailure, error.what());
  }
}

}  // namespace flashmla::tools
