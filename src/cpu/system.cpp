#include "cpu/system.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <vector>

namespace flashmla::cpu {

int32_t usable_cores() {
  // The kernel refuses a mask smaller than its own, so grow until it fits.
  for (size_t words = 16; words <= 4096; words *= 4) {
    std::vector<cpu_set_t> mask((words * sizeof(uint64_t) + sizeof(cpu_set_t) - 1) / sizeof(cpu_set_t));
    size_t const bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) != 0) continue;
    int const count = CPU_COUNT_S(bytes, mask.data());
    return count > 0 ? count : 1;
  }
  return 1;
}

int64_t memory_bytes() {
  long const pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_bytes > 0 ? static_cast<int64_t>(pages) * page_bytes : 0;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    size_t const colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

bool request_tile_registers() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

int64_t process_id() { return getpid(); }

}  // namespace flashmla::cpu
