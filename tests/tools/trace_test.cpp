#include "tools/flashmla/trace.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "tools/flashmla/errors.hpp"

namespace flashmla::tools {
namespace {

Trace read(std::string const& text) {
  std::istringstream stream(text);
  return read_trace(stream, "t");
}

std::string error_of(std::string const& text) {
  try {
    read(text);
  } catch (UsageError const& error) {
    return error.what();
  }
  return "";
}

TEST(Trace, ReadsMooncake) {
  Trace const trace = read(
      "{\"timestamp\": 500, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}\n"
      "{\"timestamp\": 3500, \"input_length\": 1, \"output_length\": 0}\n");
  EXPECT_EQ(trace.format, TraceFormat::kMooncake);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0].input_tokens, 6758);
  EXPECT_EQ(trace.requests[0].output_tokens, 500);
  EXPECT_DOUBLE_EQ(trace.requests[0].arrival_s, 0);
  EXPECT_DOUBLE_EQ(trace.requests[1].arrival_s, 3);
  EXPECT_EQ(trace.requests[1].output_tokens, 0);
  EXPECT_EQ(trace.requests[0].prefix_ids, (std::vector<int32_t>{0, 1}));
  EXPECT_TRUE(trace.requests[1].prefix_ids.empty());
  EXPECT_TRUE(trace.has_prefixes());
}

TEST(Trace, NamesTheHashIdsThatItCannotRead) {
  auto const with = [](std::string const& ids) {
    return "{\"timestamp\":0,\"input_length\":513,\"output_length\":1,\"hash_ids\":" + ids + "}\n";
  };
  EXPECT_EQ(read(with("[7,0]")).requests[0].prefix_ids.size(), 2u);
  EXPECT_FALSE(read(with("[]")).has_prefixes());
  EXPECT_EQ(error_of(with("5")), "trace: t:1: hash_ids: got 5, expected an array of integers");
  EXPECT_EQ(error_of(with("[1,-2]")), "trace: t:1: hash_ids: got -2, expected integers in [0, 2^31)");
  EXPECT_EQ(error_of(with("[1,2147483648]")), "trace: t:1: hash_ids: got 2147483648, expected integers in [0, 2^31)");
  EXPECT_EQ(error_of(with("[1,2,3]")), "trace: t:1: hash_ids: got 3 ids, expected at most 2, one for each 512 of 513 tokens");
}

TEST(Trace, ReadsAzureAcrossMidnight) {
  Trace const trace = read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n"
      "2023-12-31 23:59:59.5000000,4808,10\n"
      "2024-01-01 00:00:01.0000000,3180,8\n");
  EXPECT_EQ(trace.format, TraceFormat::kAzure);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[1].input_tokens, 3180);
  EXPECT_EQ(trace.requests[1].output_tokens, 8);
  EXPECT_NEAR(trace.requests[1].arrival_s, 1.5, 1e-6);
}

TEST(Trace, KnowsLeapYears) {
  Trace const trace = read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n"
      "2024-02-28 00:00:00,1,1\n"
      "2024-03-01 00:00:00,1,1\n");
  EXPECT_DOUBLE_EQ(trace.requests[1].arrival_s, 2 * 86400.0);
}

TEST(Trace, AcceptsCarriageReturnsBlankLinesAndAByteOrderMark) {
  Trace const trace = read("\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n\r\n2023-11-16 18:15:46.68,374,44\r\n\n");
  ASSERT_EQ(trace.requests.size(), 1u);
  EXPECT_EQ(trace.requests[0].output_tokens, 44);
}

TEST(Trace, AcceptsAMissingLastNewline) { EXPECT_EQ(read("{\"timestamp\":0,\"input_length\":5,\"output_length\":1}").requests.size(), 1u); }

TEST(Trace, ArrivalsBeforeTheFirstCountAsTheFirst) {
  Trace const trace = read(
      "{\"timestamp\":5000,\"input_length\":5,\"output_length\":1}\n"
      "{\"timestamp\":4000,\"input_length\":5,\"output_length\":1}\n");
  EXPECT_DOUBLE_EQ(trace.requests[1].arrival_s, 0);
}

TEST(Trace, EmptyIsAnError) {
  for (char const* const text : {"", "\n\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n"})
    EXPECT_EQ(error_of(text), "trace: t: got 0 requests, expected at least 1");
}

TEST(Trace, NamesTheLineOfWhatItCannotRead) {
  std::string const good = "{\"timestamp\":0,\"input_length\":5,\"output_length\":1}\n";
  struct Case {
    std::string text, expected;
  };
  std::vector<Case> const cases = {
      {good + "{\"timestamp\":0,\"input_length\":5\n", "trace: t:2: got '{\"timestamp\":0,\"input_length\":5', expected a JSON object"},
      {good + "\n[1]\n", "trace: t:3: got '[1]', expected a JSON object"},
      {good + "{\"timestamp\":0,\"output_length\":1}\n", "trace: t:2: input_length: got no such field, expected an integer"},
      {good + "{\"timestamp\":0,\"input_length\":-5,\"output_length\":1}\n",
       "trace: t:2: input_length: got -5, expected an integer in [0, 2^31)"},
      {good + "{\"timestamp\":0,\"input_length\":5,\"output_length\":1.5}\n",
       "trace: t:2: output_length: got 1.5, expected an integer in [0, 2^31)"},
      {good + "{\"timestamp\":0,\"input_length\":3000000000,\"output_length\":1}\n",
       "trace: t:2: input_length: got 3000000000, expected an integer in [0, 2^31)"},
      {good + "{\"timestamp\":\"x\",\"input_length\":5,\"output_length\":1}\n",
       "trace: t:2: timestamp: got \"x\", expected a number of ms"},
      {"a,b,c\n1,2,3\n",
       "trace: t:1: got 'a,b,c', expected a JSON object (Mooncake) or the header TIMESTAMP,ContextTokens,GeneratedTokens (Azure)"},
  };
  for (Case const& c : cases) EXPECT_EQ(error_of(c.text), c.expected);
}

TEST(Trace, NamesTheColumnOfWhatItCannotRead) {
  std::string const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  EXPECT_EQ(error_of(header + "2023-11-16 18:15:46,1\n"),
            "trace: t:2: got '2023-11-16 18:15:46,1', expected 3 fields: TIMESTAMP,ContextTokens,GeneratedTokens");
  EXPECT_EQ(error_of(header + "2023-11-16 18:15:46,x,1\n"), "trace: t:2: ContextTokens: got 'x', expected an integer in [0, 2^31)");
  EXPECT_EQ(error_of(header + "2023-11-16 18:15:46,1,\n"), "trace: t:2: GeneratedTokens: got '', expected an integer in [0, 2^31)");
  EXPECT_EQ(error_of(header + "yesterday,1,1\n"), "trace: t:2: TIMESTAMP: got 'yesterday', expected YYYY-MM-DD HH:MM:SS.fffffff");
  EXPECT_EQ(error_of(header + "2023-13-16 18:15:46,1,1\n"),
            "trace: t:2: TIMESTAMP: got '2023-13-16 18:15:46', expected YYYY-MM-DD HH:MM:SS.fffffff");
}

TEST(Trace, TakesNothingBehindATimestamp) {
  std::string const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  EXPECT_EQ(error_of(header + "2023-11-16 18:15:46.5x,1,1\n"),
            "trace: t:2: TIMESTAMP: got '2023-11-16 18:15:46.5x', expected YYYY-MM-DD HH:MM:SS.fffffff");
}

TEST(Trace, ShowsNoControlCharacters) {
  EXPECT_EQ(error_of("\x1b[31m\n"),
            "trace: t:1: got '?[31m', expected a JSON object (Mooncake) or the header TIMESTAMP,ContextTokens,GeneratedTokens (Azure)");
  EXPECT_EQ(error_of("{\"timestamp\":0,\"input_length\":[[5]],\"output_length\":1}\n"),
            "trace: t:1: input_length: got an array, expected an integer in [0, 2^31)");
}

TEST(Trace, ShortensLongLinesInMessages) {
  std::string const message = error_of(std::string(500, 'x') + "\n");
  EXPECT_LT(message.size(), 250u);
  EXPECT_NE(message.find("..."), std::string::npos);
}

TEST(Trace, MissingFileIsAUsageError) { EXPECT_THROW(static_cast<void>(read_trace_file("/nowhere/trace.jsonl")), UsageError); }

}  // namespace
}  // namespace flashmla::tools
