// A progress bar on standard error: see progress.hpp.
#include "tools/flashmla/progress.hpp"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "tools/flashmla/os.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {

Progress::Progress(std::string label) : label_(std::move(label)), enabled_(stderr_is_terminal()), begin_(Clock::now()) {}

void Progress::update(double fraction, std::string const& note) {
  if (!enabled_) return;
  auto const now = Clock::now();
  if (drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
  drawn_ = true;
  last_ = now;
  double const elapsed_s = std::chrono::duration<double>(now - begin_).count();
  std::cerr << "\r" << line(label_, fraction, elapsed_s, note, terminal_columns() - 1) << "\x1b[K" << std::flush;
}

void Progress::clear() {
  if (drawn_) std::cerr << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

std::string Progress::line(std::string const& label, double fraction, double elapsed_s, std::string const& note, int columns) {
  constexpr int kCells = 24;
  fraction = std::clamp(fraction, 0.0, 1.0);
  int const full = static_cast<int>(std::lround(fraction * kCells));
  std::string text =
      label + " [" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kCells - full), '.') + "]";
  text += format(" %3.0f %%", fraction * 100);
  if (fraction > 0.01 && fraction < 1) {
    auto const eta = static_cast<long>(std::ceil(elapsed_s / fraction - elapsed_s));
    text += format("  eta %ld:%02ld", eta / 60, eta % 60);
  }
  if (!note.empty()) text += "  " + note;
  if (columns > 0 && text.size() > static_cast<size_t>(columns)) text.resize(static_cast<size_t>(columns));
  return text;
}

}  // namespace flashmla::tools
