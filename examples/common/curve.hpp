// A picture of how a training went: curves over the epochs, as SVG, which every browser shows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace curve {

struct Panel {
  std::string title;
  std::vector<double> values;  // one for each epoch, from the first
  bool logarithmic = false;
};

namespace detail {

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

inline std::string panel(const Panel& panel, double top) {
  constexpr double left = 80, width = 640, height = 180;
  std::vector<double> ys;
  for (const double value : panel.values)
    if (std::isfinite(value) && (!panel.logarithmic || value > 0)) ys.push_back(panel.logarithmic ? std::log10(value) : value);
  std::string svg = "<text x='" + number(left) + "' y='" + number(top - 8) + "' font-weight='bold'>" + panel.title + "</text>\n";
  svg += "<rect x='" + number(left) + "' y='" + number(top) + "' width='" + number(width) + "' height='" + number(height) +
         "' fill='none' stroke='#999'/>\n";
  if (ys.empty()) return svg;
  double low = *std::min_element(ys.begin(), ys.end()), high = *std::max_element(ys.begin(), ys.end());
  const double margin = high > low ? 0.05 * (high - low) : 0.5;
  low -= margin;
  high += margin;
  const auto y_of = [&](double y) { return top + height * (high - y) / (high - low); };
  for (int i = 0; i <= 4; ++i) {
    const double y = low + (high - low) * i / 4;
    svg += "<line x1='" + number(left) + "' x2='" + number(left + width) + "' y1='" + number(y_of(y)) + "' y2='" +
           number(y_of(y)) + "' stroke='#ddd'/>\n<text x='" + number(left - 6) + "' y='" + number(y_of(y) + 4) +
           "' text-anchor='end'>" + number(panel.logarithmic ? std::pow(10, y) : y) + "</text>\n";
  }
  const double step = width / double(std::max<std::size_t>(ys.size() - 1, 1));
  svg += "<polyline fill='none' stroke='#1f6fb4' stroke-width='2' points='";
  for (std::size_t i = 0; i < ys.size(); ++i) svg += number(left + step * double(i)) + "," + number(y_of(ys[i])) + " ";
  svg += "'/>\n<text x='" + number(left) + "' y='" + number(top + height + 16) + "'>1</text><text x='" +
         number(left + width) + "' y='" + number(top + height + 16) + "' text-anchor='end'>epoch " +
         std::to_string(ys.size()) + "</text>\n";
  return svg;
}

}  // namespace detail

/// Writes the panels under one another.
inline void write_svg(const std::filesystem::path& path, const std::vector<Panel>& panels) {
  std::string body;
  double top = 30;
  for (const Panel& panel : panels) {
    body += detail::panel(panel, top);
    top += 240;
  }
  std::ofstream(path) << "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='" << top
                      << "' font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
                      << body << "</svg>\n";
}

}  // namespace curve
