#include "api/errors/table.hpp"

#include <fstream>
#include <stdexcept>

namespace flashmla::errors {
namespace {

std::string trimmed(std::string const& text) {
  size_t const first = text.find_first_not_of(" \t\r");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> split(std::string const& text, std::string const& separator, size_t most) {
  std::vector<std::string> pieces;
  size_t begin = 0, end = 0;
  while (pieces.size() + 1 < most && (end = text.find(separator, begin)) != std::string::npos) {
    pieces.push_back(trimmed(text.substr(begin, end - begin)));
    begin = end + separator.size();
  }
  pieces.push_back(trimmed(text.substr(begin)));
  return pieces;
}

[[noreturn]] void fail(int line, std::string const& text) {
  throw std::invalid_argument("matrix.txt:" + std::to_string(line) + ": cannot read `" + text + "`");
}

Assignment parse_assignment(std::string const& text, int line) {
  auto const sides = split(text, "=", 2);
  if (sides.size() != 2 || sides[0].empty() || sides[1].empty()) fail(line, text);
  return {sides[0], sides[1]};
}

flashmla_status parse_status(std::string const& name, int line) {
  for (int s = FLASHMLA_INVALID_ARGUMENT; s <= FLASHMLA_INTERNAL; ++s)
    if ("FLASHMLA_" + name == flashmla_status_name(static_cast<flashmla_status>(s))) return static_cast<flashmla_status>(s);
  fail(line, name);
}

BadRow parse_row(std::string const& text, int line) {
  auto const columns = split(text, "|", 3);
  if (columns.size() != 3 || columns[2].empty()) fail(line, text);
  BadRow row;
  row.line = line;
  for (std::string const& change : split(columns[0], ";", 9)) row.changes.push_back(parse_assignment(change, line));
  row.status = parse_status(columns[1], line);
  row.message = columns[2];
  return row;
}

}  // namespace

std::string BadRow::label() const {
  std::string text = "matrix.txt:" + std::to_string(line) + ":";
  for (Assignment const& change : changes) text += " " + change.path + " = " + change.value;
  return text;
}

std::vector<CallBlock> read_table(std::string const& path) {
  std::ifstream file(path);
  if (!file) throw std::invalid_argument("cannot open " + path);
  std::vector<CallBlock> blocks;
  std::string raw;
  for (int line = 1; std::getline(file, raw); ++line) {
    std::string const text = trimmed(raw);
    if (text.empty() || text.front() == '#' || text.rfind("any ", 0) == 0) continue;
    if (text.rfind("call ", 0) == 0) {
      blocks.push_back({trimmed(text.substr(5)), {}, {}});
      continue;
    }
    if (blocks.empty()) fail(line, text);
    if (text.rfind("- ", 0) == 0) blocks.back().rows.push_back(parse_row(text.substr(2), line));
    else blocks.back().good.push_back(parse_assignment(text, line));
  }
  return blocks;
}

bool is_in_grammar(std::string const& text) {
  auto const is_name = [](std::string const& name, std::string const& more) {
    return !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_" + more) == std::string::npos;
  };
  size_t const operation = text.find(": "), argument = text.find(": got ", operation == std::string::npos ? operation : operation + 1);
  if (argument == std::string::npos) return false;
  size_t const got = argument + 6, expected = text.find(", expected ", got);
  return is_name(text.substr(0, operation), "") && is_name(text.substr(operation + 2, argument - operation - 2), "0123456789[].") &&
         expected != std::string::npos && expected > got && expected + 11 < text.size() && text.find('\n') == std::string::npos;
}

bool matches(std::string const& text, std::string const& pattern) {
  size_t at = 0;
  auto const pieces = split(pattern, "...", SIZE_MAX);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].empty()) continue;
    size_t const found = text.find(pieces[i], at);
    if (found == std::string::npos || (i == 0 && found != 0)) return false;
    at = found + pieces[i].size();
  }
  return pieces.back().empty() || at == text.size();
}

}  // namespace flashmla::errors
