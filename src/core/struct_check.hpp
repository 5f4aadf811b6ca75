// What every argument struct of the C ABI promises: its size, no unknown flag, zeros where nothing is defined yet.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "core/error.hpp"

namespace flashmla::core {

/// A caller built against a later header may pass a larger struct, as long as it uses nothing this library does not know.
inline void check_extra_bytes(char const* operation, char const* type, void const* data, uint32_t size, size_t known) {
  constexpr uint32_t kLargest = 1u << 16;  // beyond this the field was never set
  if (size < known || size > kLargest)
    fail_invalid(operation, "struct_size", std::to_string(size), std::to_string(known) + " (sizeof(" + type + "); is the field set?)");
  char const* const bytes = static_cast<char const*>(data);
  for (size_t i = known; i < size; ++i)
    if (bytes[i] != 0)
      fail_invalid(operation, "struct_size", std::to_string(size) + " with byte " + std::to_string(i) + " set",
                   "zeros past " + std::to_string(known) + " (made for a later version of " + type + ")");
}

template <typename T>
void check_struct_size(char const* operation, char const* type, T const& data) {
  uint32_t size;
  std::memcpy(&size, &data, sizeof size);
  if (size != sizeof(T)) check_extra_bytes(operation, type, &data, size, sizeof(T));
}

/// The struct with zeros for what it did not have yet when its caller was built: `first_size` bytes or all of it.
template <typename T>
T known_prefix(char const* operation, char const* type, T const& data, size_t first_size) {
  uint32_t size;
  std::memcpy(&size, &data, sizeof size);
  T whole{};
  if (size == first_size) {
    std::memcpy(&whole, &data, first_size);
    return whole;
  }
  check_struct_size(operation, type, data);
  std::memcpy(&whole, &data, sizeof whole);
  return whole;
}

/// `argument` tells the flags of one struct of a call from those of another.
inline void check_flags(char const* operation, uint32_t flags, uint32_t known, char const* argument = "flags") {
  if ((flags & ~known) != 0)
    fail_invalid(operation, argument, std::to_string(flags),
                 (known == 0 ? "0" : "only bits of " + std::to_string(known)) + " (unknown flag " + std::to_string(flags & ~known) + ")");
}

inline void check_reserved(char const* operation, int64_t reserved, char const* argument = "reserved") {
  if (reserved != 0) fail_invalid(operation, argument, std::to_string(reserved), "0");
}

}  // namespace flashmla::core
