// Everything that the tool asks of the operating system, in one place, so that another system needs one other file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flashmla::tools {

[[nodiscard]] bool stderr_is_terminal();
[[nodiscard]] int terminal_columns();

/// Memory that this process could still take without pushing others out; 0 when the system does not say.
[[nodiscard]] int64_t available_memory_bytes();

/// 256-byte aligned; in large pages where the system has them to give: a walk over scattered cache pages must not be a
/// measurement of the address translation. Throws std::bad_alloc.
[[nodiscard]] void* allocate_memory(size_t bytes);
void release_memory(void* memory) noexcept;

}  // namespace flashmla::tools
