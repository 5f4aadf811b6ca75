// Everything that the tool asks of the operating system: see os.hpp. POSIX, and Linux where it offers more.
#include "tools/flashmla/os.hpp"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <new>
#include <string>

namespace flashmla::tools {

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

int terminal_columns() {
  winsize size{};
  bool const known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

int64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kib = 0;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

void* allocate_memory(size_t bytes) {
  constexpr size_t kLargePage = size_t{2} << 20;
  size_t const alignment = bytes >= 2 * kLargePage ? kLargePage : 256;
  size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded > 0 ? rounded : alignment);
  if (memory == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (alignment == kLargePage) madvise(memory, rounded, MADV_HUGEPAGE);  // advice only: a refusal costs speed, nothing else
#endif
  return memory;
}

void release_memory(void* memory) noexcept { std::free(memory); }

}  // namespace flashmla::tools
