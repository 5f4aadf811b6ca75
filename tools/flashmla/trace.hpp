// Serving traces: arrival times and lengths of real requests, without their text.
//
// Two formats are told apart by their first line: the Mooncake release (one JSON object a line, `timestamp` in ms,
// `input_length`, `output_length`, and `hash_ids`, which name the blocks of its prompt) and the Azure LLM inference dataset (CSV: TIMESTAMP,ContextTokens,GeneratedTokens).
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace flashmla::tools {

struct TraceRequest {
  double arrival_s = 0;  // since the first request of the trace
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<int32_t> prefix_ids{};  // one for each block of the prompt, from its start; equal ids: equal up to the block's end
};

/// Tokens of the prompt that an id stands for; the last block may be shorter.
inline constexpr int64_t kPrefixBlockTokens = 512;

enum class TraceFormat { kMooncake, kAzure };

struct Trace {
  TraceFormat format = TraceFormat::kMooncake;
  std::vector<TraceRequest> requests;  // in the order of the file

  /// Some request says what its prompt consists of.
  [[nodiscard]] bool has_prefixes() const;
};

[[nodiscard]] char const* trace_format_name(TraceFormat format);

/// Throws UsageError that names the line of `name` that it could not read. Blank lines, CRLF and a byte order mark are
/// accepted; a trace without a request is not.
Trace read_trace(std::istream& stream, std::string const& name);
Trace read_trace_file(std::string const& path);

}  // namespace flashmla::tools
