// Whether a text is a well-formed XML document, as far as the pictures use XML: elements, attributes, text, entities.
#pragma once

#include <string>
#include <vector>

namespace flashmla::tools {

/// Empty when well-formed, else what is wrong.
inline std::string xml_defect(std::string const& xml) {
  std::vector<std::string> open;
  bool seen_root = false;
  size_t at = 0;
  auto const bad_entity = [](std::string const& text) {
    for (size_t i = text.find('&'); i != std::string::npos; i = text.find('&', i + 1)) {
      bool known = false;
      for (char const* const entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"})
        known = known || text.compare(i, std::string(entity).size(), entity) == 0;
      if (!known) return true;
    }
    return false;
  };
  while (at < xml.size()) {
    size_t const begin = xml.find('<', at);
    std::string const text = xml.substr(at, begin == std::string::npos ? std::string::npos : begin - at);
    if (text.find('>') != std::string::npos || bad_entity(text)) return "reserved characters in text: " + text;
    if (open.empty() && text.find_first_not_of(" \n") != std::string::npos) return "text outside the root: " + text;
    if (begin == std::string::npos) break;
    size_t const end = xml.find('>', begin);
    if (end == std::string::npos) return "an element that does not end";
    std::string tag = xml.substr(begin + 1, end - begin - 1);
    at = end + 1;
    if (tag.empty()) return "an element without a name";
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "unexpected </" + tag.substr(1) + ">";
      open.pop_back();
      continue;
    }
    bool const closed = tag.back() == '/';
    if (closed) tag.pop_back();
    if (open.empty() && seen_root) return "a second root";
    seen_root = true;
    size_t i = tag.find(' ');
    std::string const name = tag.substr(0, i);
    while (i != std::string::npos && (i = tag.find_first_not_of(' ', i)) != std::string::npos) {
      size_t const equals = tag.find("=\"", i);
      if (equals == std::string::npos) return "an attribute without a value in <" + tag + ">";
      size_t const quote = tag.find('"', equals + 2);
      if (quote == std::string::npos) return "an open quote in <" + tag + ">";
      std::string const value = tag.substr(equals + 2, quote - equals - 2);
      if (value.find('<') != std::string::npos || bad_entity(value)) return "reserved characters in <" + tag + ">";
      i = quote + 1;
    }
    if (!closed) open.push_back(name);
  }
  if (!open.empty()) return "<" + open.back() + "> is not closed";
  return seen_root ? "" : "no root";
}

}  // namespace flashmla::tools
