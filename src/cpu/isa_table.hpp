// The kernel table of the CPU backend: one row an instruction set, best first, in the order in which plans try them.
#pragma once

#include <span>
#include <string>

#include "core/backend.hpp"
#include "cpu/generic/tasks.hpp"

namespace flashmla::cpu {

struct IsaRow {
  flashmla_isa isa;
  char const* name;
  char const* serves;
  Kernels const* kernels;
};

std::span<IsaRow const> isa_table();

/// The row that `isa` names, or the best usable one for FLASHMLA_ISA_AUTO; throws FLASHMLA_UNSUPPORTED when this machine
/// can't run it.
IsaRow const& choose_isa(flashmla_isa isa);

std::vector<core::KernelRow> kernel_rows();

}  // namespace flashmla::cpu
