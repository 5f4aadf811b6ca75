#include "conformance/check.hpp"

namespace flashmla::conformance {

Outcome refused(char const* call, flashmla_status status) {
  std::string const message = flashmla_last_error();
  if (status == FLASHMLA_UNSUPPORTED) return skipped(message);
  return failed(std::string(call) + " answers " + flashmla_status_name(status) + ": " + message);
}

std::string text_of(flashmla_fault const& f) {
  return "{code " + std::to_string(f.code) + ", request " + std::to_string(f.request) + ", position " + std::to_string(f.position) +
         ", value " + std::to_string(f.value) + "}";
}

bool same(flashmla_fault const& a, flashmla_fault const& b) {
  return a.code == b.code && a.request == b.request && a.position == b.position && a.value == b.value;
}

}  // namespace flashmla::conformance
