// A small SVG writer: see svg.hpp.
#include "tools/flashmla/svg.hpp"

#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

std::string stroke_attributes(Stroke const& stroke) {
  return format("fill=\"none\" stroke=\"%s\" stroke-width=\"%g\"%s", stroke.colour.c_str(), stroke.width,
                stroke.dashed ? " stroke-dasharray=\"5 4\"" : "");
}

std::string point_list(std::vector<Point> const& points) {
  std::string text;
  for (Point const& point : points) text += format("%s%.1f,%.1f", text.empty() ? "" : " ", point.x, point.y);
  return text;
}

}  // namespace

Svg::Svg(double width, double height) {
  head_ = format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\" font-family=\"sans-serif\">\n",
                 width, height, width, height);
  rect({0, 0, width, height}, "#ffffff");
}

void Svg::rect(Rect const& rect, std::string const& fill, double opacity) {
  body_ += format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" fill-opacity=\"%g\"/>\n", rect.x, rect.y,
                  rect.width, rect.height, fill.c_str(), opacity);
}

void Svg::line(Point from, Point to, Stroke const& stroke) {
  body_ +=
      format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", from.x, from.y, to.x, to.y, stroke_attributes(stroke).c_str());
}

void Svg::polyline(std::vector<Point> const& points, Stroke const& stroke) {
  if (points.empty()) return;
  body_ += "<polyline points=\"" + point_list(points) + "\" stroke-linejoin=\"round\" " + stroke_attributes(stroke) + "/>\n";
}

void Svg::polygon(std::vector<Point> const& points, std::string const& fill, double opacity) {
  if (points.empty()) return;
  body_ += "<polygon points=\"" + point_list(points) + format("\" fill=\"%s\" fill-opacity=\"%g\"/>\n", fill.c_str(), opacity);
}

void Svg::text(Point at, std::string const& text, TextStyle const& style) {
  std::string const rotation = style.vertical ? format(" transform=\"rotate(-90 %.1f %.1f)\"", at.x, at.y) : "";
  body_ +=
      format("<text x=\"%.1f\" y=\"%.1f\" font-size=\"%g\" text-anchor=\"%s\" fill=\"%s\"%s%s>%s</text>\n", at.x, at.y, style.size,
             style.anchor.c_str(), style.colour.c_str(), style.bold ? " font-weight=\"bold\"" : "", rotation.c_str(), escape(text).c_str());
}

std::string Svg::str() const { return head_ + body_ + "</svg>\n"; }

std::string Svg::escape(std::string const& text) {
  std::string escaped;
  for (char const c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&apos;";
        break;
      default:
        escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return escaped;
}

}  // namespace flashmla::tools
