// The whole command line: from arguments to an action, and from what an action throws to an exit code.
//
// Apart from main, so that the fuzz harness can read command lines by the million without a process for each.
#pragma once

#include "tools/flashmla/command.hpp"

namespace flashmla::tools {

/// What a command line asks for. Without an action it was answered already, by help or a complaint, and `code` is the exit code.
struct Request {
  Action action;
  int code = 0;
};

Request read_command_line(int argc, char const* const* argv);

/// Runs an action; what it throws becomes one line on standard error and an exit code.
int perform(Action const& action);

}  // namespace flashmla::tools
