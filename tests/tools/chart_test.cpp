#include "tools/flashmla/chart.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tools/xml_check.hpp"

namespace flashmla::tools {
namespace {

size_t count(std::string const& text, std::string const& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

std::string drawn(LineChart const& chart) {
  Svg svg(600, 400);
  draw(svg, {0, 0, 600, 400}, chart);
  EXPECT_EQ(xml_defect(svg.str()), "");
  return svg.str();
}

TEST(TickStep, IsRoundAndSmallEnough) {
  EXPECT_DOUBLE_EQ(tick_step(100, 5), 20);
  EXPECT_DOUBLE_EQ(tick_step(7, 5), 2);
  EXPECT_DOUBLE_EQ(tick_step(0.3, 5), 0.1);
  for (double const largest : {1e-6, 0.123, 1.0, 9.99, 12345.0}) EXPECT_LE(largest / tick_step(largest, 5), 5.001) << largest;
}

TEST(LineChart, HasTitleLabelsAndLegend) {
  std::string const xml =
      drawn({"Title & more", "step", "ms", {{"one", "#111111", {1, 2, 3}, true, false}, {"two", "#222222", {3, 2, 1}, false, true}}});
  for (char const* const part : {"Title &amp; more", ">step<", ">ms<", ">one<", ">two<", "#111111", "#222222"})
    EXPECT_NE(xml.find(part), std::string::npos) << part;
  EXPECT_EQ(count(xml, "<polyline"), 2u);
  EXPECT_EQ(count(xml, "<polygon"), 1u);
}

TEST(LineChart, ShortAndEmptySeriesAreDrawn) {
  EXPECT_EQ(count(drawn({"t", "x", "y", {{"none", "#000000", {}}}}), "<polyline"), 0u);
  EXPECT_EQ(count(drawn({"t", "x", "y", {{"one", "#000000", {5}}}}), "<polyline"), 1u);
  EXPECT_EQ(count(drawn({"t", "x", "y", {{"zeros", "#000000", {0, 0, 0}}}}), "<polyline"), 1u);
}

TEST(LineChart, NumbersThatAreNotFiniteNeverReachTheDrawing) {
  double const nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  std::string const xml = drawn({"t", "x", "y", {{"s", "#000000", {1, nan, inf, 2}}}});
  EXPECT_EQ(xml.find("nan"), std::string::npos);
  EXPECT_EQ(xml.find("inf"), std::string::npos);
}

TEST(LineChart, ManyStepsKeepTheirSpikes) {
  std::vector<double> values(100000, 1.0);
  values[54321] = 10.0;
  std::string const xml = drawn({"t", "x", "y", {{"s", "#000000", values}}});
  EXPECT_LT(xml.size(), 40000u);
  EXPECT_NE(xml.find(",44.0"), std::string::npos) << "the spike touches the top of the plot, where its value is the axis' end";
}

TEST(Bars, NameValueLimitAndShare) {
  Svg svg(600, 200);
  draw(svg, {0, 0, 600, 200}, "Use",
       {{"Reading", 15, 30, "GB/s", "memory read", "#0000ff"},
        {"Over", 40, 30, "GB/s", "limit", "#00ff00"},
        {"No limit", 1, 0, "x", "none", "#ff0000"}});
  std::string const xml = svg.str();
  EXPECT_EQ(xml_defect(xml), "");
  EXPECT_NE(xml.find("Reading: 15 of 30 GB/s (50 %)"), std::string::npos);
  EXPECT_NE(xml.find("100 % = memory read"), std::string::npos);
  EXPECT_EQ(xml.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace flashmla::tools
