#include "core/kv_format.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/names.hpp"

namespace flashmla::core {
namespace {

TEST(KvFormat, RowsAreConsistent) {
  std::set<std::string> names;
  for (KvFormat const& format : kKvFormats) {
    SCOPED_TRACE(format.name);
    EXPECT_TRUE(names.insert(format.name).second);
    EXPECT_EQ(find_kv_format(format.id), &format);
    EXPECT_EQ(format.latent + format.rope, format.qk_dim);
    EXPECT_LE(format.v_dim, format.qk_dim);
    if (format.dtype != FLASHMLA_UINT8) {
      EXPECT_EQ(format.bytes_per_token, format.qk_dim * static_cast<int32_t>(dtype_bytes(format.dtype)));
    }
  }
}

TEST(KvFormat, ValuesThatAreNoFormatAreNotFound) {
  EXPECT_EQ(find_kv_format(FLASHMLA_KV_NONE), nullptr);
  EXPECT_EQ(find_kv_format(-1), nullptr);
  EXPECT_EQ(find_kv_format(99), nullptr);
}

}  // namespace
}  // namespace flashmla::core
