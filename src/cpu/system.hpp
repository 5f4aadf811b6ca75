// What the CPU backend asks of the operating system; the one file to port.
#pragma once

#include <cstdint>
#include <string>

namespace flashmla::cpu {

/// Cores that this process may run on (its affinity mask), at least 1.
int32_t usable_cores();

/// Bytes of physical memory, 0 when unknown.
int64_t memory_bytes();

/// The CPU's brand, e.g. "AMD EPYC 9654 96-Core Processor".
std::string cpu_name();

/// Asks for the registers of AMX, which Linux grants to a process on request; false where it does not. Threads that are
/// started later inherit the grant, and those that run already share it.
bool request_tile_registers();

/// Tells a process from its fork.
int64_t process_id();

}  // namespace flashmla::cpu
