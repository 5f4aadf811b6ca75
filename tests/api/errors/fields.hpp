// The structs of flashmla.h as data: the name, kind and place of every field, for tests that change any of them by its name.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace flashmla::errors {

enum class Kind { kInt32, kUint32, kInt64, kFloat, kPointer, kText, kStruct };

struct StructType;

struct Field {
  char const* name;
  Kind kind;
  size_t offset, bytes;    // of one entry
  size_t count;            // entries of an array, else 1
  StructType const* type;  // of a kStruct
};

struct StructType {
  char const* name;
  size_t bytes;
  std::span<Field const> fields;

  [[nodiscard]] Field const* find(std::string_view field) const;
};

/// Every struct of the header that a function takes or fills in.
std::span<StructType const* const> struct_types();
/// The one called `name`, such as "flashmla_view"; null for none.
StructType const* find_struct(std::string_view name);

/// A field of a struct in memory.
struct Place {
  void* address;
  Kind kind;
  StructType const* type;  // of a kStruct
};

/// The place that `path` names inside a struct at `base`, such as "lengths.kv_len.size[0]". Throws std::invalid_argument.
Place find_place(StructType const& type, void* base, std::string_view path);

}  // namespace flashmla::errors
