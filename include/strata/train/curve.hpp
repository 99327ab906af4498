// A picture of how a training went: curves under one another, as SVG, which every browser shows.
//
//     st::write_curves("curve.svg", {{.title = "training loss", .values = losses, .logarithmic = true, .at = epochs}});
//
// Both axes have round numbers, and every value stands at its own epoch or step: where some were not measured, or the
// last came early, the curve says so.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"

namespace strata::inline STRATA_ABI {

struct CurvePanel {
  std::string title;
  std::vector<double> values = {};  ///< those that are not finite are left out, and so is what has no logarithm
  bool logarithmic = false;
  std::vector<double> at = {};  ///< the epoch or step of each value; empty: 1, 2, 3, ...
  std::string unit = "epoch";   ///< what `at` counts
};

namespace detail {

/// The multiples of 1, 2 or 5 times a power of ten from low to high, at most `most` of them.
inline std::vector<double> round_ticks(double low, double high, int most) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(high - low)) return ticks;
  const double power = std::pow(10, std::floor(std::log10((high - low) / most)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    step = power * factor;
    if (std::floor(high / step + 1e-9) - std::ceil(low / step - 1e-9) + 1 <= most) break;
  }
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    ticks.push_back(i == 0 ? 0.0 : i * step);
  return ticks;
}

/// Round numbers between 10^low and 10^high: 1, 2 and 5 times powers of ten where these are few enough, powers of ten
/// where they are not, and other round numbers where the range is short.
inline std::vector<double> round_logarithmic_ticks(double low, double high, std::size_t most) {
  std::vector<double> all, powers;
  for (double exponent = std::floor(low); exponent <= high; ++exponent)
    for (const double factor : {1.0, 2.0, 5.0})
      if (const double y = exponent + std::log10(factor); y >= low && y <= high) {
        all.push_back(factor * std::pow(10, exponent));
        if (factor == 1) powers.push_back(all.back());
      }
  if (all.size() < 3) return round_ticks(std::pow(10, low), std::pow(10, high), int(most));
  if (all.size() <= most) return all;
  const std::size_t every = (powers.size() + most - 1) / most;
  std::vector<double> some;
  for (std::size_t i = 0; i < powers.size(); i += every) some.push_back(powers[i]);
  return some;
}

/// 20000 -> "20,000"; other numbers as %g.
inline std::string tick_text(double value) {
  if (value != std::floor(value) || std::abs(value) < 10000 || std::abs(value) > 1e15) return concat(value);
  std::string text = concat(std::int64_t(value));
  for (std::ptrdiff_t place = std::ptrdiff_t(text.size()) - 3; place > (value < 0 ? 1 : 0); place -= 3)
    text.insert(std::size_t(place), ",");
  return text;
}

inline std::string svg_text(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    if (letter == '<')
      out += "&lt;";
    else if (letter == '&')
      out += "&amp;";
    else
      out += letter;
  }
  return out;
}

inline std::string curve_panel(const CurvePanel& panel, double top) {
  constexpr double left = 80, width = 640, height = 180;
  std::vector<std::pair<double, double>> points;
  for (std::size_t i = 0; i < panel.values.size(); ++i) {
    const double value = panel.values[i], x = panel.at.empty() ? double(i + 1) : panel.at.at(i);
    if (std::isfinite(x) && std::isfinite(value) && (!panel.logarithmic || value > 0))
      points.emplace_back(x, panel.logarithmic ? std::log10(value) : value);
  }
  std::string svg = concat("<text x='", left, "' y='", top - 8, "' font-weight='bold'>", svg_text(panel.title),
                           "</text>\n", "<rect x='", left, "' y='", top, "' width='", width, "' height='", height,
                           "' fill='none' stroke='#999'/>\n");
  if (points.empty()) return svg;
  double low = points[0].second, high = low, first = points[0].first, last = first;
  for (const auto& [x, y] : points) {
    low = std::min(low, y), high = std::max(high, y);
    first = std::min(first, x), last = std::max(last, x);
  }
  const double margin =
      high > low ? 0.05 * (high - low) : std::max(0.05 * std::abs(high), panel.logarithmic ? 0.1 : 1e-3);
  low -= margin, high += margin;
  if (last == first) first -= 0.5, last += 0.5;
  const auto x_of = [&](double x) { return left + width * (x - first) / (last - first); };
  const auto y_of = [&](double y) { return top + height * (high - y) / (high - low); };
  for (const double value : panel.logarithmic ? round_logarithmic_ticks(low, high, 6) : round_ticks(low, high, 6)) {
    const double y = y_of(panel.logarithmic ? std::log10(value) : value);
    svg += concat("<line x1='", left, "' x2='", left + width, "' y1='", y, "' y2='", y, "' stroke='#ddd'/>\n<text x='",
                  left - 6, "' y='", y + 4, "' text-anchor='end'>", tick_text(value), "</text>\n");
  }
  for (const double value : round_ticks(first, last, 9))
    if (value == std::floor(value))
      svg += concat("<line x1='", x_of(value), "' x2='", x_of(value), "' y1='", top, "' y2='", top + height,
                    "' stroke='#eee'/>\n<text x='", x_of(value), "' y='", top + height + 16, "' text-anchor='middle'>",
                    tick_text(value), "</text>\n");
  svg += concat("<text x='", left + width, "' y='", top + height + 32, "' text-anchor='end'>", svg_text(panel.unit),
                "</text>\n");
  svg += "<polyline fill='none' stroke='#1f6fb4' stroke-width='2' points='";
  for (const auto& [x, y] : points) svg += concat(x_of(x), ",", y_of(y), " ");
  svg += "'/>\n";
  if (points.size() <= 60)  // so that each value can be told from the line between them
    for (const auto& [x, y] : points)
      svg += concat("<circle cx='", x_of(x), "' cy='", y_of(y), "' r='2.5' fill='#1f6fb4'/>\n");
  return svg;
}

}  // namespace detail

/// Writes the panels under one another. Throws FileError.
inline void write_curves(const std::filesystem::path& path, const std::vector<CurvePanel>& panels) {
  std::string body;
  double top = 30;
  for (const CurvePanel& panel : panels) {
    body += detail::curve_panel(panel, top);
    top += 250;
  }
  write_file(path, concat("<svg xmlns='http://www.w3.org/2000/svg' width='760' height='", top,
                          "' font-family='sans-serif' font-size='12'>\n",
                          "<rect width='100%' height='100%' fill='white'/>\n", body, "</svg>\n"));
}

}  // namespace strata::inline STRATA_ABI
