// Serving traces: see trace.hpp.
#include "tools/flashmla/trace.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr char const* kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

/// Where a line stands, for messages.
struct Line {
  std::string const& file;
  int64_t number;

  [[noreturn]] void fail(std::string const& argument, std::string const& got, std::string const& expected) const {
    std::string shown = got.size() <= 60 ? got : got.substr(0, 57) + "...";
    for (char& c : shown)  // a trace may be any file: its bytes must not drive a terminal, nor end the text
      if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
    throw UsageError(format("trace: %s:%lld: %sgot %s, expected %s", file.c_str(), static_cast<long long>(number),
                            argument.empty() ? "" : (argument + ": ").c_str(), shown.c_str(), expected.c_str()));
  }
};

/// A value in a message. Arrays and objects are not spelled out: however deep they nest, a line must not end the program.
std::string shown(nlohmann::json const& value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int64_t mooncake_field(nlohmann::json const& object, char const* name, Line const& line) {
  auto const found = object.find(name);
  if (found == object.end()) line.fail(name, "no such field", "an integer");
  bool const legal = found->is_number_unsigned() && found->get<uint64_t>() <= static_cast<uint64_t>(kMaxTokens);
  if (!legal) line.fail(name, shown(*found), "an integer in [0, 2^31)");
  return found->get<int64_t>();
}

std::vector<int32_t> mooncake_prefix(nlohmann::json const& object, int64_t input_tokens, Line const& line) {
  std::vector<int32_t> ids;
  auto const found = object.find("hash_ids");
  if (found == object.end()) return ids;
  if (!found->is_array()) line.fail("hash_ids", shown(*found), "an array of integers");
  auto const most = static_cast<size_t>((input_tokens + kPrefixBlockTokens - 1) / kPrefixBlockTokens);
  if (found->size() > most)
    line.fail("hash_ids", format("%zu ids", found->size()),
              format("at most %zu, one for each %lld of %lld tokens", most, static_cast<long long>(kPrefixBlockTokens),
                     static_cast<long long>(input_tokens)));
  for (auto const& id : *found) {
    bool const legal = id.is_number_unsigned() && id.get<uint64_t>() <= static_cast<uint64_t>(kMaxTokens);
    if (!legal) line.fail("hash_ids", shown(id), "integers in [0, 2^31)");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

TraceRequest parse_mooncake(std::string const& text, Line const& line) {
  auto const object = nlohmann::json::parse(text, nullptr, false);
  if (!object.is_object()) line.fail("", "'" + text + "'", "a JSON object");
  auto const arrival = object.find("timestamp");
  if (arrival == object.end() || !arrival->is_number())
    line.fail("timestamp", arrival == object.end() ? "no such field" : shown(*arrival), "a number of ms");
  int64_t const input = mooncake_field(object, "input_length", line), output = mooncake_field(object, "output_length", line);
  return {arrival->get<double>() * 1e-3, input, output, mooncake_prefix(object, input, line)};
}

int64_t azure_field(std::string const& text, char const* name, Line const& line) {
  int64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool const legal = error == std::errc() && end == text.data() + text.size() && value >= 0 && value <= kMaxTokens;
  if (!legal) line.fail(name, "'" + text + "'", "an integer in [0, 2^31)");
  return value;
}

/// Days since 1970-01-01 in the Gregorian calendar.
int64_t days_from_civil(int64_t year, int month, int day) {
  year -= month <= 2 ? 1 : 0;
  int64_t const era = year / 400;
  int64_t const year_of_era = year - era * 400;
  int64_t const day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

double azure_time(std::string const& text, Line const& line) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  double second = 0;
  int length = -1;
  int const fields = std::sscanf(text.c_str(), "%4d-%2d-%2d %2d:%2d:%lf%n", &year, &month, &day, &hour, &minute, &second, &length);
  bool const legal = fields == 6 && length == static_cast<int>(text.size()) && year >= 1970 && month >= 1 && month <= 12 && day >= 1 &&
                     day <= 31 && hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 61;
  if (!legal) line.fail("TIMESTAMP", "'" + text + "'", "YYYY-MM-DD HH:MM:SS.fffffff");
  return static_cast<double>(days_from_civil(year, month, day)) * 86400 + hour * 3600 + minute * 60 + second;
}

TraceRequest parse_azure(std::string const& text, Line const& line) {
  auto const fields = split(text, ',');
  if (fields.size() != 3) line.fail("", "'" + text + "'", std::string("3 fields: ") + kAzureHeader);
  return {azure_time(fields[0], line), azure_field(fields[1], "ContextTokens", line), azure_field(fields[2], "GeneratedTokens", line)};
}

void strip(std::string& text, bool first) {
  if (first && text.compare(0, 3, "\xef\xbb\xbf") == 0) text.erase(0, 3);
  while (!text.empty() && (text.back() == '\r' || text.back() == ' ' || text.back() == '\t')) text.pop_back();
}

TraceFormat detect(std::string const& text, Line const& line) {
  if (text == kAzureHeader) return TraceFormat::kAzure;
  if (text.front() == '{') return TraceFormat::kMooncake;
  line.fail("", "'" + text + "'", std::string("a JSON object (Mooncake) or the header ") + kAzureHeader + " (Azure)");
}

}  // namespace

bool Trace::has_prefixes() const {
  return std::any_of(requests.begin(), requests.end(), [](TraceRequest const& request) { return !request.prefix_ids.empty(); });
}

char const* trace_format_name(TraceFormat format) { return format == TraceFormat::kMooncake ? "mooncake" : "azure"; }

Trace read_trace(std::istream& stream, std::string const& name) {
  Trace trace;
  bool detected = false;
  std::string text;
  for (int64_t number = 1; std::getline(stream, text); ++number) {
    strip(text, number == 1);
    if (text.empty()) continue;
    Line const line{name, number};
    if (!detected) {
      trace.format = detect(text, line);
      detected = true;
      if (trace.format == TraceFormat::kAzure) continue;
    }
    trace.requests.push_back(trace.format == TraceFormat::kMooncake ? parse_mooncake(text, line) : parse_azure(text, line));
  }
  if (trace.requests.empty()) throw UsageError("trace: " + name + ": got 0 requests, expected at least 1");
  double const begin_s = trace.requests.front().arrival_s;
  for (auto& request : trace.requests) request.arrival_s = std::max(0.0, request.arrival_s - begin_s);
  return trace;
}

Trace read_trace_file(std::string const& path) {
  std::ifstream file(path);
  if (!file) throw UsageError("trace: " + path + ": got a file that cannot be opened, expected a Mooncake .jsonl or an Azure .csv trace");
  return read_trace(file, path);
}

}  // namespace flashmla::tools
