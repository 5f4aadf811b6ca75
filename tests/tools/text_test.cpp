#include "tools/flashmla/text.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

TEST(Text, FormatsLikePrintf) { EXPECT_EQ(format("%d %s %.1f", 3, "x", 2.25), "3 x 2.2"); }

TEST(Text, BytesHaveThreeDigitsAndAUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(72 * 1024), "72.0 KiB");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024 * 1024), "1.50 GiB");
}

TEST(Text, SecondsHaveThreeDigitsAndAUnit) {
  EXPECT_EQ(format_seconds(0.9e-6), "0.90 us");
  EXPECT_EQ(format_seconds(16.2e-3), "16.2 ms");
  EXPECT_EQ(format_seconds(123), "123 s");
}

TEST(Text, CountsAreGrouped) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
}

TEST(Text, SplitKeepsEmptyFields) {
  EXPECT_EQ(split("a,b", ','), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(split("a,,", ','), (std::vector<std::string>{"a", "", ""}));
  EXPECT_EQ(split("", ','), (std::vector<std::string>{""}));
}

TEST(Table, AlignsColumnsAndLeavesNoTrailingSpace) {
  Table table;
  table.column("name", Table::Align::kLeft);
  table.column("n", Table::Align::kRight);
  table.column("note", Table::Align::kLeft);
  table.row({"a", "100", "x"});
  table.row({"long one", "1"});
  EXPECT_EQ(table.str(),
            "name        n  note\n"
            "a         100  x\n"
            "long one    1\n");
}

}  // namespace
}  // namespace flashmla::tools
