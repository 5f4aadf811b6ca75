// The error matrix: each row of matrix.txt through C and, where C++ can say the same, through flashmla.hpp. The status and the whole
// text must be those of the row, and nothing that the call was given may have changed.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "api/errors/call.hpp"
#include "api/errors/table.hpp"

namespace flashmla::errors {
namespace {

std::vector<CallBlock> const& table() {
  static std::vector<CallBlock> const blocks = read_table(FLASHMLA_ERROR_MATRIX);
  return blocks;
}

/// plan_parts says how much room it needs in the same call that refuses too little.
bool may_change(Call& call, BadRow const& row) {
  return call.function().rfind("flashmla_plan_parts", 0) == 0 && row.message.find("expected at least 2 parts") != std::string::npos;
}

void check_answer(Answer const& answer, BadRow const& row) {
  EXPECT_EQ(answer.status, row.status) << flashmla_status_name(answer.status);
  EXPECT_TRUE(matches(answer.message, row.message)) << flashmla_status_name(answer.status) << " | " << answer.message;
  EXPECT_TRUE(is_in_grammar(answer.message)) << answer.message;
}

TEST(ErrorMatrix, TheGoodCallsAreGood) {
  for (CallBlock const& block : table()) {
    Call call(block, {});
    Answer const answer = call_c(call);
    EXPECT_EQ(answer.status, FLASHMLA_OK) << block.function << ": " << answer.message;
    EXPECT_EQ(answer.message, "") << block.function;
    Call again(block, {});
    std::optional<Answer> const cpp = call_cpp(again);
    EXPECT_TRUE(!cpp || cpp->status == FLASHMLA_OK) << block.function << ": " << cpp->message;
  }
}

TEST(ErrorMatrix, ThroughC) {
  for (CallBlock const& block : table()) {
    for (BadRow const& row : block.rows) {
      SCOPED_TRACE(row.label());
      Call call(block, row.changes);
      std::string const before = call.bytes();
      check_answer(call_c(call), row);
      EXPECT_TRUE(may_change(call, row) || call.bytes() == before) << "the failed call changed something";
    }
  }
}

TEST(ErrorMatrix, ThroughCpp) {
  int64_t said = 0, all = 0;
  for (CallBlock const& block : table()) {
    for (BadRow const& row : block.rows) {
      SCOPED_TRACE(row.label());
      Call call(block, row.changes);
      std::string const before = call.bytes();
      std::optional<Answer> const answer = call_cpp(call);
      ++all;
      if (!answer) continue;
      ++said;
      check_answer(*answer, row);
      EXPECT_TRUE(call.bytes() == before) << "the failed call changed something";
    }
  }
  EXPECT_GT(said * 10, all * 8) << "rows that C++ can say: " << said << " of " << all;
}

TEST(ErrorMatrix, EveryFunctionHasRows) {
  std::set<std::string> functions;
  for (CallBlock const& block : table())
    if (!block.rows.empty()) functions.insert(block.function);
  auto const known = callable_functions();
  EXPECT_EQ(functions, std::set<std::string>(known.begin(), known.end()));
}

}  // namespace
}  // namespace flashmla::errors
