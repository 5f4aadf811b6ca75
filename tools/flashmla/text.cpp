// Text for people: see text.hpp.
#include "tools/flashmla/text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <sstream>
#include <utility>

namespace flashmla::tools {
namespace {

/// Three significant digits of `value`, which lies in [0, 1000) or is the largest unit there is.
std::string three_digits(double value) {
  if (value >= 100) return format("%.0f", value);
  if (value >= 10) return format("%.1f", value);
  return format("%.2f", value);
}

std::string pad(std::string const& text, size_t width, Table::Align align) {
  std::string const spaces(width > text.size() ? width - text.size() : 0, ' ');
  return align == Table::Align::kLeft ? text + spaces : spaces + text;
}

}  // namespace

std::string format(char const* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  va_list again;
  va_copy(again, arguments);
  int const size = std::vsnprintf(nullptr, 0, pattern, arguments);
  va_end(arguments);
  std::string text(static_cast<size_t>(std::max(size, 0)), '\0');
  std::vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

std::string format_bytes(double bytes) {
  constexpr std::array<char const*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1000 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? format("%.0f B", bytes) : three_digits(bytes) + " " + kUnits[unit];
}

std::string format_seconds(double seconds) {
  if (seconds < 1e-3) return three_digits(seconds * 1e6) + " us";
  if (seconds < 1) return three_digits(seconds * 1e3) + " ms";
  return three_digits(seconds) + " s";
}

std::string format_count(int64_t count) {
  std::string text = std::to_string(count);
  size_t const first_digit = count < 0 ? 1 : 0;
  for (size_t position = text.size(); position > first_digit + 3; position -= 3) text.insert(position - 3, 1, ',');
  return text;
}

std::vector<std::string> split(std::string const& text, char separator) {
  std::vector<std::string> fields;
  std::string field;
  std::istringstream stream(text);
  while (std::getline(stream, field, separator)) fields.push_back(field);
  if (text.empty() || text.back() == separator) fields.emplace_back();
  return fields;
}

void Table::column(std::string const& title, Align align) {
  aligns_.push_back(align);
  rows_.front().push_back(title);
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(aligns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::str() const {
  std::vector<size_t> widths(aligns_.size(), 0);
  for (auto const& row : rows_)
    for (size_t c = 0; c < widths.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string text;
  for (auto const& row : rows_) {
    std::string line;
    for (size_t c = 0; c < widths.size(); ++c) {
      if (c > 0) line += "  ";
      bool const last = c + 1 == widths.size();
      line += last && aligns_[c] == Align::kLeft ? row[c] : pad(row[c], widths[c], aligns_[c]);
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += line + "\n";
  }
  return text;
}

}  // namespace flashmla::tools
