#include "core/error.hpp"

namespace flashmla::core {

namespace {

std::string sentence(std::string const& operation, std::string const& argument, std::string const& got, std::string const& expected) {
  return operation + ": " + argument + ": got " + got + ", expected " + expected;
}

}  // namespace

void fail_invalid(std::string const& operation, std::string const& argument, std::string const& got, std::string const& expected) {
  throw Error(FLASHMLA_INVALID_ARGUMENT, sentence(operation, argument, got, expected));
}

void fail_unsupported(std::string const& operation, std::string const& argument, std::string const& got, std::string const& nearest) {
  throw Error(FLASHMLA_UNSUPPORTED, sentence(operation, argument, got, nearest));
}

}  // namespace flashmla::core
