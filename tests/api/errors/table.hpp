// The error matrix as data: tests/api/errors/matrix.txt, which explains its own form.
#pragma once

#include <flashmla/flashmla.h>

#include <string>
#include <vector>

namespace flashmla::errors {

/// `path = value`.
struct Assignment {
  std::string path, value;
};

/// One way to get a call wrong.
struct BadRow {
  int line = 0;
  std::vector<Assignment> changes;  // of the good call
  flashmla_status status = FLASHMLA_OK;
  std::string message;  // the whole text; `...` stands for any part of it

  [[nodiscard]] std::string label() const;
};

/// A good call of a function, and the ways to get it wrong.
struct CallBlock {
  std::string function;
  std::vector<Assignment> good;
  std::vector<BadRow> rows;
};

/// Throws std::invalid_argument with the line of what it cannot read.
std::vector<CallBlock> read_table(std::string const& path);

/// Whether a text is `operation: argument: got X, expected Y`, in one line.
bool is_in_grammar(std::string const& text);

/// Whether `text` is `pattern`, in which `...` stands for any text.
bool matches(std::string const& text, std::string const& pattern);

}  // namespace flashmla::errors
