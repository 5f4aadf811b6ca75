// flashmla: the library from a shell. One file a subcommand; command_line.cpp reads the arguments.
#include "tools/flashmla/command_line.hpp"

int main(int argc, char** argv) {
  auto const request = flashmla::tools::read_command_line(argc, argv);
  return request.action ? flashmla::tools::perform(request.action) : request.code;
}
