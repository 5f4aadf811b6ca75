#include "tools/flashmla/svg.hpp"

#include <gtest/gtest.h>

#include "tools/xml_check.hpp"

namespace flashmla::tools {
namespace {

TEST(XmlCheck, TellsGoodFromBad) {
  EXPECT_EQ(xml_defect("<a b=\"1\"><c/>x &amp; y</a>\n"), "");
  for (char const* const bad : {"", "<a>", "<a></b>", "<a b=1/>", "<a>&nbsp;</a>", "<a b=\"<\"/>", "<a/><b/>", "<a/>x", "<a>></a>"})
    EXPECT_NE(xml_defect(bad), "") << bad;
}

TEST(Svg, EscapesWhatXmlReserves) { EXPECT_EQ(Svg::escape("a<b>&\"c'\n"), "a&lt;b&gt;&amp;&quot;c&apos; "); }

TEST(Svg, EveryShapeIsWellFormed) {
  Svg svg(100, 50);
  svg.rect({1, 2, 3, 4}, "#fff", 0.5);
  svg.line({0, 0}, {1, 1}, {"#000", 2, true});
  svg.polyline({{0, 0}, {1, 1}, {2, 0}}, {"#123456"});
  svg.polygon({{0, 0}, {1, 1}, {2, 0}}, "red", 0.1);
  svg.text({1, 1}, "5 < 6 & \"7\"", {12, "end", "#000", true, true});
  std::string const xml = svg.str();
  EXPECT_EQ(xml_defect(xml), "");
  for (char const* const part : {"<svg xmlns=\"http://www.w3.org/2000/svg\"", "viewBox=\"0 0 100 50\"", "<rect", "<line",
                                 "stroke-dasharray", "<polyline", "<polygon", "5 &lt; 6 &amp; &quot;7&quot;", "rotate(-90"})
    EXPECT_NE(xml.find(part), std::string::npos) << part;
}

TEST(Svg, NothingIsDrawnOfNoPoints) {
  Svg svg(10, 10);
  std::string const before = svg.str();
  svg.polyline({}, {"#000"});
  svg.polygon({}, "#000", 1);
  EXPECT_EQ(svg.str(), before);
}

}  // namespace
}  // namespace flashmla::tools
