// The trace reader on files that are nearly traces: it returns requests that a replay can serve, or names a line.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "fuzz/fuzz.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/trace.hpp"

namespace flashmla::tools {
namespace {

std::vector<std::string> const kSeeds = {
    "{\"timestamp\": 500, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}\n"
    "{\"timestamp\": 3500.25, \"input_length\": 1, \"output_length\": 0}\n",
    "{\"timestamp\":0,\"input_length\":1024,\"output_length\":1,\"hash_ids\":[7,0]}\r\n\n{\"timestamp\":-1,\"input_length\":0,\"output_"
    "length\":2}",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2024-02-29 23:59:60,1,0\n",
    "\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n\r\n1970-01-01 00:00:00,2147483647,2147483647\r\n",
};
std::vector<std::string_view> const kWords = {"{",
                                              "}",
                                              "[",
                                              "]",
                                              ",",
                                              ":",
                                              "\"",
                                              "\\",
                                              "\n",
                                              "\r\n",
                                              "\xef\xbb\xbf",
                                              std::string_view("\0", 1),
                                              "null",
                                              "true",
                                              "-1",
                                              "0.5",
                                              "1e308",
                                              "-1e308",
                                              "1e999",
                                              "nan",
                                              "inf",
                                              "2147483647",
                                              "2147483648",
                                              "4294967296",
                                              "9223372036854775807",
                                              "18446744073709551616",
                                              "\"timestamp\"",
                                              "\"input_length\"",
                                              "\"output_length\"",
                                              "\"hash_ids\"",
                                              "[[[[[[[[",
                                              "\\ud800",
                                              "TIMESTAMP,ContextTokens,GeneratedTokens",
                                              "2023-11-16 18:15:46",
                                              "0000-00-00",
                                              "9999-12-31",
                                              "%n",
                                              "{\"a\":"};

std::string judge(Trace const& trace) {
  if (trace.requests.empty()) return "no request";
  for (TraceRequest const& request : trace.requests) {
    if (!(std::isfinite(request.arrival_s) && request.arrival_s >= 0)) return "arrival " + std::to_string(request.arrival_s);
    for (int64_t const tokens : {request.input_tokens, request.output_tokens})
      if (tokens < 0 || tokens > INT32_MAX) return "tokens " + std::to_string(tokens);
    auto const most = (request.input_tokens + kPrefixBlockTokens - 1) / kPrefixBlockTokens;
    if (static_cast<int64_t>(request.prefix_ids.size()) > most) return "too many prefix ids";
    for (int32_t const id : request.prefix_ids)
      if (id < 0) return "prefix id " + std::to_string(id);
  }
  return "";
}

std::string judge(std::string const& message) {
  if (message.rfind("trace: t:", 0) != 0) return "the message names no place: " + message;
  if (message.find("got ") == std::string::npos || message.find(", expected ") == std::string::npos)
    return "not in the grammar: " + message;
  if (message.size() > 300) return "a message of " + std::to_string(message.size()) + " bytes";
  for (char const c : message)
    if (static_cast<unsigned char>(c) < ' ') return "a control character in the message";
  return "";
}

std::string read_one(std::string const& text) {
  std::istringstream stream(text);
  try {
    return judge(read_trace(stream, "t"));
  } catch (UsageError const& error) {
    return judge(std::string(error.what()));
  } catch (std::exception const& error) {
    return std::string("not a UsageError: ") + error.what();
  }
}

TEST(TraceFuzz, EveryFileIsReadOrRefused) {
  fuzz::run_rounds(20000, [](fuzz::Random& random) {
    std::string const text = fuzz::mutated(random, fuzz::any_of(random, kSeeds), kWords);
    fuzz::describe_round(text);
    return read_one(text);
  });
}

/// One line of a hundred thousand brackets used up the stack.
TEST(TraceFuzz, DepthIsNoDanger) {
  constexpr int kDepth = 200000;
  std::string const deep = std::string(kDepth, '[') + std::string(kDepth, ']');
  for (char const* const field : {"timestamp", "input_length", "hash_ids"}) {
    std::string text = "{\"timestamp\": 0, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": [1]}";
    std::string const name = std::string("\"") + field + "\": ";
    size_t const at = text.find(name) + name.size();
    text.replace(at, text.find_first_of(",}", at) - at, std::string(field) == "hash_ids" ? "[" + deep + "]" : deep);
    EXPECT_EQ(read_one(text), "") << field;
  }
  EXPECT_EQ(read_one("{\"a\": " + std::string(kDepth, '[')), "");
  EXPECT_EQ(read_one("{\"hash_ids\": {\"a\": " + deep + "}, \"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}"), "");
}

}  // namespace
}  // namespace flashmla::tools
