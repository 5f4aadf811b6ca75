#include "cpu/isa_table.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "core/names.hpp"
#include "cpu/isa/detect.hpp"

namespace flashmla::cpu {
namespace {

TEST(IsaTable, EveryRowIsUsableOrSaysWhyNot) {
  std::vector<core::KernelRow> const rows = kernel_rows();
  ASSERT_EQ(rows.size(), 7u);
  for (core::KernelRow const& row : rows) {
    EXPECT_EQ(row.usable, row.reason.empty()) << row.name;
    std::string const missing = missing_features(row.isa);
    EXPECT_EQ(row.reason.rfind(missing, 0), 0u) << row.reason;  // what the CPU has may still be refused by the system
    EXPECT_NE(row.name.find(core::isa_name(row.isa)), std::string::npos);
    EXPECT_FALSE(row.serves.empty());
  }
  EXPECT_TRUE(rows.back().usable) << "the portable row runs everywhere";
}

TEST(IsaTable, AutoTakesTheFirstUsableRow) {
  for (core::KernelRow const& row : kernel_rows()) {
    if (!row.usable) continue;
    EXPECT_EQ(choose_isa(FLASHMLA_ISA_AUTO).isa, row.isa);
    break;
  }
}

TEST(IsaTable, AForcedRowIsTakenOrRefused) {
  for (core::KernelRow const& row : kernel_rows()) {
    if (row.usable) {
      EXPECT_EQ(choose_isa(row.isa).isa, row.isa);
      continue;
    }
    try {
      static_cast<void>(choose_isa(row.isa));
      ADD_FAILURE() << row.name << " is not usable, yet was chosen";
    } catch (core::Error const& error) {
      EXPECT_EQ(error.status(), FLASHMLA_UNSUPPORTED);
      EXPECT_NE(std::string(error.what()).find(row.reason), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace flashmla::cpu
