// What a spinning thread does between two looks.
#pragma once

#include <thread>

namespace flashmla::cpu {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace flashmla::cpu
