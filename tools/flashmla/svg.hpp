// A small SVG writer: shapes in, well-formed XML out. Coordinates in pixels, y down, as in SVG itself.
#pragma once

#include <string>
#include <vector>

namespace flashmla::tools {

struct Point {
  double x, y;
};

struct Rect {
  double x, y, width, height;
};

struct Stroke {
  std::string colour;
  double width = 1;
  bool dashed = false;
};

struct TextStyle {
  double size = 12;
  std::string anchor = "start";  // start, middle, end
  std::string colour = "#24292f";
  bool bold = false;
  bool vertical = false;  // read from below
};

class Svg {
 public:
  Svg(double width, double height);

  void rect(Rect const& rect, std::string const& fill, double opacity = 1);
  void line(Point from, Point to, Stroke const& stroke);
  void polyline(std::vector<Point> const& points, Stroke const& stroke);
  void polygon(std::vector<Point> const& points, std::string const& fill, double opacity);
  void text(Point at, std::string const& text, TextStyle const& style = {});

  [[nodiscard]] std::string str() const;

  /// `text` with the five characters that XML reserves written as entities, and control characters as spaces.
  static std::string escape(std::string const& text);

 private:
  std::string head_;
  std::string body_;
};

}  // namespace flashmla::tools
