// Line charts with labelled axes, round ticks and a legend, and bars against a limit, drawn on an Svg.
#pragma once

#include <string>
#include <vector>

#include "tools/flashmla/svg.hpp"

namespace flashmla::tools {

struct Series {
  std::string name;
  std::string colour;
  std::vector<double> y;  // one value a step; the x axis counts them
  bool area = false;      // filled down to the axis
  bool dashed = false;
};

struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;  // with its unit
  std::vector<Series> series;
};

/// Draws the chart, its labels and its legend inside `frame`. The y axis starts at 0; values that are not finite are
/// left out. More steps than pixels are drawn as the largest value of each pixel.
void draw(Svg& svg, Rect const& frame, LineChart const& chart);

/// A horizontal bar from 0 to 100 % of `limit`.
struct Bar {
  std::string name;
  double value;
  double limit;
  std::string unit;
  std::string limit_name;
  std::string colour;
};
void draw(Svg& svg, Rect const& frame, std::string const& title, std::vector<Bar> const& bars);

/// A round step, 1, 2 or 5 times a power of ten, that cuts [0, largest] into at most `most` pieces.
double tick_step(double largest, int most);

}  // namespace flashmla::tools
