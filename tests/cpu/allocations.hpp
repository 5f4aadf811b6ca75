// How often operator new was called in this program, for tests of what must not allocate.
#pragma once

#include <cstdint>

namespace flashmla::cpu::test {

int64_t num_allocations();

}  // namespace flashmla::cpu::test
