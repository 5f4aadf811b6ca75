// What the machine has: one answer for each instruction set of the table.
#pragma once

#include <flashmla/flashmla.h>

#include <string>

namespace flashmla::cpu {

/// Empty when this machine, and its operating system, can run `isa`; else why not.
std::string missing_features(flashmla_isa isa);

/// Whether this build has code for `isa`: another architecture's rows exist by name only.
bool is_compiled(flashmla_isa isa);

}  // namespace flashmla::cpu
