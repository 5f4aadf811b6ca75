// Line charts and bars: see chart.hpp.
#include "tools/flashmla/chart.hpp"

#include <algorithm>
#include <cmath>

#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

constexpr char const* kInk = "#24292f";
constexpr char const* kFaint = "#57606a";
constexpr char const* kGrid = "#e4e8ec";

/// From values to pixels. The plot lies inside the frame, which also holds title, legend and labels.
struct Axes {
  Rect plot;
  double x_largest, y_largest;

  [[nodiscard]] double x(double value) const { return plot.x + plot.width * value / x_largest; }
  [[nodiscard]] double y(double value) const { return plot.y + plot.height * (1 - value / y_largest); }
};

Axes axes_of(Rect const& frame, LineChart const& chart) {
  double steps = 1, largest = 0;
  for (Series const& series : chart.series) {
    steps = std::max(steps, static_cast<double>(series.y.size()) - 1);
    for (double const value : series.y)
      if (std::isfinite(value)) largest = std::max(largest, value);
  }
  if (largest <= 0) largest = 1;
  double const step = tick_step(largest, 5);
  return {{frame.x + 62, frame.y + 44, frame.width - 76, frame.height - 84}, steps, std::ceil(largest / step) * step};
}

std::string tick_text(double value) { return format("%.6g", value); }

void draw_axes(Svg& svg, Axes const& axes, LineChart const& chart) {
  Rect const& plot = axes.plot;
  double const bottom = plot.y + plot.height;
  TextStyle const tick{11, "end", kFaint};
  double const y_step = tick_step(axes.y_largest, 5);
  for (int i = 0; i * y_step <= axes.y_largest * 1.0001; ++i) {
    double const value = i * y_step;
    svg.line({plot.x, axes.y(value)}, {plot.x + plot.width, axes.y(value)}, {kGrid});
    svg.text({plot.x - 6, axes.y(value) + 4}, tick_text(value), tick);
  }
  double const x_step = std::max(1.0, tick_step(axes.x_largest, 8));
  for (int i = 0; i * x_step <= axes.x_largest; ++i) {
    double const at = axes.x(i * x_step);
    svg.line({at, bottom}, {at, bottom + 4}, {kFaint});
    svg.text({at, bottom + 17}, tick_text(i * x_step), {11, "middle", kFaint});
  }
  svg.line({plot.x, bottom}, {plot.x + plot.width, bottom}, {kFaint});
  svg.text({plot.x + plot.width / 2, bottom + 33}, chart.x_label, {12, "middle", kInk});
  svg.text({plot.x - 46, plot.y + plot.height / 2}, chart.y_label, {12, "middle", kInk, false, true});
}

/// One point a step or, where there are more steps than pixels, one point a pixel: the largest value, so that no spike
/// is lost.
std::vector<Point> points_of(Axes const& axes, std::vector<double> const& values) {
  std::vector<Point> points;
  size_t const pixels = static_cast<size_t>(std::max(1.0, axes.plot.width));
  size_t const stride = std::max<size_t>(1, (values.size() + pixels - 1) / pixels);
  for (size_t i = 0; i < values.size(); i += stride) {
    double largest = -1;
    for (size_t j = i; j < std::min(values.size(), i + stride); ++j)
      if (std::isfinite(values[j])) largest = std::max(largest, values[j]);
    if (largest >= 0) points.push_back({axes.x(static_cast<double>(i)), axes.y(std::min(largest, axes.y_largest))});
  }
  return points;
}

void draw_legend(Svg& svg, Rect const& frame, std::vector<Series> const& series) {
  double x = frame.x + 62;
  double const y = frame.y + 32;
  for (Series const& one : series) {
    svg.line({x, y - 4}, {x + 18, y - 4}, {one.colour, 3, one.dashed});
    svg.text({x + 23, y}, one.name, {11, "start", kInk});
    x += 38 + 6.1 * static_cast<double>(one.name.size());
  }
}

}  // namespace

double tick_step(double largest, int most) {
  double const rough = largest / most;
  double const power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double const factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * 0.9999) return factor * power;
  return 10 * power;
}

void draw(Svg& svg, Rect const& frame, LineChart const& chart) {
  Axes const axes = axes_of(frame, chart);
  svg.text({frame.x + 62, frame.y + 14}, chart.title, {14, "start", kInk, true});
  draw_axes(svg, axes, chart);
  for (Series const& series : chart.series) {
    std::vector<Point> points = points_of(axes, series.y);
    if (points.empty()) continue;
    if (series.area) {
      std::vector<Point> outline = points;
      outline.push_back({points.back().x, axes.y(0)});
      outline.push_back({points.front().x, axes.y(0)});
      svg.polygon(outline, series.colour, 0.2);
    }
    svg.polyline(points, {series.colour, 1.6, series.dashed});
  }
  draw_legend(svg, frame, chart.series);
}

void draw(Svg& svg, Rect const& frame, std::string const& title, std::vector<Bar> const& bars) {
  svg.text({frame.x + 62, frame.y + 14}, title, {14, "start", kInk, true});
  double const left = frame.x + 62, width = frame.width - 76;
  double const pitch = (frame.height - 30) / static_cast<double>(std::max<size_t>(1, bars.size()));
  for (size_t i = 0; i < bars.size(); ++i) {
    Bar const& bar = bars[i];
    double const top = frame.y + 30 + pitch * static_cast<double>(i);
    double const fraction = bar.limit > 0 ? bar.value / bar.limit : 0;
    svg.text({left, top + 12},
             format("%s: %.3g of %.3g %s (%.0f %%)", bar.name.c_str(), bar.value, bar.limit, bar.unit.c_str(), fraction * 100),
             {12, "start", kInk});
    svg.rect({left, top + 19, width, 16}, kGrid);
    svg.rect({left, top + 19, width * std::clamp(fraction, 0.0, 1.0), 16}, bar.colour);
    svg.text({left, top + 49}, "100 % = " + bar.limit_name, {11, "start", kFaint});
  }
}

}  // namespace flashmla::tools
