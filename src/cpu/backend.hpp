// The CPU backend's front door; src/api is its only caller besides tests.
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace flashmla::cpu {

std::unique_ptr<core::Backend> make_backend();

}  // namespace flashmla::cpu
