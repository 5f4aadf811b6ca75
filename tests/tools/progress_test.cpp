#include "tools/flashmla/progress.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

TEST(Progress, LineHasBarShareEtaAndNote) {
  EXPECT_EQ(Progress::line("decode", 0.5, 60, "step 3", 200), "decode [############............]  50 %  eta 1:00  step 3");
  EXPECT_EQ(Progress::line("decode", 1.0, 60, "", 200), "decode [########################] 100 %");
}

TEST(Progress, NoEtaBeforeAnythingIsDone) { EXPECT_EQ(Progress::line("x", 0, 5, "", 200).find("eta"), std::string::npos); }

TEST(Progress, FitsTheTerminal) { EXPECT_EQ(Progress::line("decode", 0.5, 60, std::string(300, 'n'), 79).size(), 79u); }

TEST(Progress, FractionsBeyondTheEndsAreClamped) {
  EXPECT_NE(Progress::line("x", 7, 5, "", 200).find("100 %"), std::string::npos);
  EXPECT_NE(Progress::line("x", -1, 5, "", 200).find("0 %"), std::string::npos);
}

}  // namespace
}  // namespace flashmla::tools
