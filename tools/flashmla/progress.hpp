// A progress bar on standard error: drawn on a terminal only, never into a pipe or a log.
#pragma once

#include <chrono>
#include <string>

namespace flashmla::tools {

class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress() { clear(); }
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  /// `fraction` of the work is done; `note` follows the bar. Draws at most ten times a second.
  void update(double fraction, std::string const& note = "");
  /// Takes the bar off the screen.
  void clear();

  /// The line as it is drawn, `columns` wide at most; what tests look at.
  static std::string line(std::string const& label, double fraction, double elapsed_s, std::string const& note, int columns);

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  bool enabled_;
  bool drawn_ = false;
  Clock::time_point begin_;
  Clock::time_point last_{};
};

}  // namespace flashmla::tools
