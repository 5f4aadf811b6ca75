// The list of fields against the structs themselves: they lie one behind the other and fill the struct, so that a field which is
// added to the header, and not to the list, leaves a gap.
#include "api/errors/fields.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace flashmla::errors {
namespace {

size_t alignment_of(Field const& field) {
  if (field.kind != Kind::kStruct) return field.bytes;
  size_t most = 1;
  for (Field const& inner : field.type->fields) most = std::max(most, alignment_of(inner));
  return most;
}

TEST(Fields, FillTheirStructs) {
  for (StructType const* const type : struct_types()) {
    size_t end = 0, alignment = 1;
    for (Field const& field : type->fields) {
      size_t const own = alignment_of(field);
      alignment = std::max(alignment, own);
      EXPECT_EQ(field.offset, (end + own - 1) / own * own) << type->name << " has something before " << field.name;
      end = field.offset + field.bytes * field.count;
    }
    EXPECT_EQ(type->bytes, (end + alignment - 1) / alignment * alignment) << type->name << " has something behind its last field";
  }
}

}  // namespace
}  // namespace flashmla::errors
