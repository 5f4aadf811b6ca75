// Text for people: printf-style formatting into a string, numbers with units, and aligned tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace flashmla::tools {

/// std::snprintf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(char const* pattern, ...);

/// Three significant digits with the binary unit that suits: "72 KiB", "1.50 GiB".
std::string format_bytes(double bytes);

/// Three significant digits with the unit that suits: "16.2 ms".
std::string format_seconds(double seconds);

/// Groups of three digits: 1234567 -> "1,234,567".
std::string format_count(int64_t count);

std::vector<std::string> split(std::string const& text, char separator);

/// Columns padded to their widest cell, two spaces apart; the last column is never padded.
class Table {
 public:
  enum class Align { kLeft, kRight };

  void column(std::string const& title, Align align);
  void row(std::vector<std::string> cells);
  [[nodiscard]] std::string str() const;

 private:
  std::vector<Align> aligns_;
  std::vector<std::vector<std::string>> rows_ = {{}};  // the titles first
};

}  // namespace flashmla::tools
