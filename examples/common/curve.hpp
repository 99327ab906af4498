// A picture of how a training went: curves over the epochs, as SVG, which every browser shows.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"

namespace curve {

namespace st = strata;

struct Panel {
  std::string title;
  std::vector<double> values;  // one for each epoch, from the first
  bool logarithmic = false;
};

namespace detail {

inline std::string panel(const Panel& panel, double top) {
  constexpr double left = 80, width = 640, height = 180;
  std::vector<double> ys;
  for (const double value : panel.values)
    if (std::isfinite(value) && (!panel.logarithmic || value > 0)) ys.push_back(panel.logarithmic ? std::log10(value) : value);
  std::string svg = st::concat("<text x='", left, "' y='", top - 8, "' font-weight='bold'>", panel.title, "</text>\n",
                               "<rect x='", left, "' y='", top, "' width='", width, "' height='", height,
                               "' fill='none' stroke='#999'/>\n");
  if (ys.empty()) return svg;
  double low = *std::min_element(ys.begin(), ys.end()), high = *std::max_element(ys.begin(), ys.end());
  const double margin = high > low ? 0.05 * (high - low) : 0.5;
  low -= margin;
  high += margin;
  const auto y_of = [&](double y) { return top + height * (high - y) / (high - low); };
  for (int i = 0; i <= 4; ++i) {
    const double y = low + (high - low) * i / 4;
    svg += st::concat("<line x1='", left, "' x2='", left + width, "' y1='", y_of(y), "' y2='", y_of(y),
                      "' stroke='#ddd'/>\n<text x='", left - 6, "' y='", y_of(y) + 4, "' text-anchor='end'>",
                      panel.logarithmic ? std::pow(10, y) : y, "</text>\n");
  }
  const double step = width / double(std::max<std::size_t>(ys.size() - 1, 1));
  svg += "<polyline fill='none' stroke='#1f6fb4' stroke-width='2' points='";
  for (std::size_t i = 0; i < ys.size(); ++i) svg += st::concat(left + step * double(i), ",", y_of(ys[i]), " ");
  svg += st::concat("'/>\n<text x='", left, "' y='", top + height + 16, "'>1</text><text x='", left + width, "' y='",
                    top + height + 16, "' text-anchor='end'>epoch ", ys.size(), "</text>\n");
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
  st::write_file(path, st::concat("<svg xmlns='http://www.w3.org/2000/svg' width='760' height='", top,
                                  "' font-family='sans-serif' font-size='12'>\n",
                                  "<rect width='100%' height='100%' fill='white'/>\n", body, "</svg>\n"));
}

}  // namespace curve
