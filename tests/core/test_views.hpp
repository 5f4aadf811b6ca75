// Views over memory that no test touches: addresses in a reserved range, apart from each other.
#pragma once

#include <cstdint>
#include <flashmla/view.hpp>

namespace flashmla::core {

/// Address `index` GiB into a made-up range. Validation never reads through it.
inline void* fake_memory(int index) { return reinterpret_cast<void*>((uintptr_t{1} << 40) + (static_cast<uintptr_t>(index) << 30)); }

}  // namespace flashmla::core
