// The shape of a subcommand: it adds itself to the command line, and becomes the chosen action when it was named.
//
// Results go to standard output when everything that depends on the arguments has succeeded, so that a bad argument
// leaves it empty; progress and complaints go to standard error.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>

#include "tools/flashmla/target.hpp"

namespace flashmla::tools {

using Action = std::function<int()>;  // returns the exit code

void add_info(CLI::App& app, Action& chosen);
void add_kernels(CLI::App& app, Action& chosen);
void add_plan(CLI::App& app, Action& chosen);
void add_check(CLI::App& app, Action& chosen);
void add_bench(CLI::App& app, Action& chosen);
void add_replay(CLI::App& app, Action& chosen);

/// The options of BackendOptions and --json, the same for every command that has them.
void add_backend_options(CLI::App& command, BackendOptions& options);
void add_json_flag(CLI::App& command, bool& json);

/// Checks of numbers, whose complaints are in the grammar of the library's errors.
CLI::Validator whole_number(int64_t least, int64_t most);
CLI::Validator number_from(double least);

}  // namespace flashmla::tools
