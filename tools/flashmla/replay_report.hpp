// What a replay found: as text, as JSON, and as a picture.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/flashmla/replay_run.hpp"

namespace flashmla::tools {

[[nodiscard]] std::string replay_text(ReplayResult const& result);
/// Every step is in it, so that other tools can plot it.
[[nodiscard]] nlohmann::json replay_json(ReplayResult const& result);
/// An SVG: the batch, the cache against padded and contiguous ones, the time of each step, and the use of the device.
[[nodiscard]] std::string replay_picture(ReplayResult const& result);

}  // namespace flashmla::tools
