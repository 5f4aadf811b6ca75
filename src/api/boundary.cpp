#include "api/boundary.hpp"

#include <cstdio>
#include <new>

#include "core/names.hpp"

namespace flashmla::api {

namespace {

thread_local char t_last_error[1024] = "";

}  // namespace

flashmla_status set_error(flashmla_status status, char const* message) noexcept {
  std::snprintf(t_last_error, sizeof t_last_error, "%s", message);
  return status;
}

void clear_error() noexcept { t_last_error[0] = '\0'; }

char const* last_error() noexcept { return t_last_error; }

flashmla_status report_exception(char const* operation) noexcept {
  try {
    throw;
  } catch (core::Error const& error) {
    return set_error(error.status(), error.what());
  } catch (std::bad_alloc const&) {
    std::snprintf(t_last_error, sizeof t_last_error, "%s: memory: got none, expected host memory (allocation failed)", operation);
    return FLASHMLA_OUT_OF_MEMORY;
  } catch (std::exception const& error) {
    std::snprintf(t_last_error, sizeof t_last_error, "%s: internal: got %s, expected no such exception (a defect of this library)",
                  operation, error.what());
  } catch (...) {
    std::snprintf(t_last_error, sizeof t_last_error, "%s: internal: got an unknown exception, expected none (a defect of this library)",
                  operation);
  }
  return FLASHMLA_INTERNAL;
}

}  // namespace flashmla::api

extern "C" {

char const* flashmla_last_error(void) { return flashmla::api::last_error(); }

char const* flashmla_status_name(flashmla_status status) { return flashmla::core::status_name(status); }

}  // extern "C"
