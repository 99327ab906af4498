// One page that shows how a run went: curves with the values under the pointer, pictures before and after with a
// slider, layers, configuration, environment. It is a single file that any browser shows, without a network, light or
// dark.
//
//     st::Report report{.name = "dncnn-s25", .state = "epoch 3 of 50"};
//     report.series.push_back({"loss", steps, losses});
//     report.layers = st::layer_table(net, 40, 40);
//     st::write_report("report.html", report);
//
// train/run.hpp keeps one up to date.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/core/parallel.hpp"
#include "strata/nn/summary.hpp"
#include "strata/train/detail/report_page.hpp"
#include "strata/version.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A curve: the value at each step. Those that are not finite are gaps.
struct ReportSeries {
  std::string tag;
  std::vector<std::int64_t> steps = {};
  std::vector<double> values = {};
};

/// Two pictures of the same thing, as the bytes of PNG files; before may be empty.
struct ReportPicture {
  std::string name;
  std::optional<std::int64_t> step = {};
  std::string before = {}, after = {};
};

struct ReportBest {
  std::string what;
  double value = 0;
  std::string when = {};
};

struct LayerTable {
  std::vector<std::string> columns = {"name", "layer", "output", "parameters", "multiply-adds"};
  std::vector<std::vector<std::string>> rows = {};
  std::string total = {};
};

using TextPairs = std::vector<std::pair<std::string, std::string>>;

struct Report {
  std::string name;
  std::string state = {};
  bool running = false;  ///< the page reads itself again once a minute
  std::vector<ReportBest> best = {};
  std::vector<ReportSeries> series = {};
  std::vector<ReportPicture> pictures = {};
  LayerTable layers = {};
  TextPairs config = {}, environment = {};
};

/// The layers of a network as st::summary has them. Throws ShapeError where the image does not suit it.
template <class Net>
LayerTable layer_table(const Net& net, std::int64_t h, std::int64_t w) {
  detail::check_extents("layer_table", h, w);
  detail::ListedModules modules;
  detail::list_modules(net, "", modules);
  detail::SummarySink sink(std::move(modules));
  detail::Following run(1, &sink);
  Infer pass;
  const int result = detail::follow(run, net, pass, h, w);
  detail::check_fits("layer_table", run, h, w);
  LayerTable table;
  for (const detail::SummarySink::Row& row : sink.rows())
    table.rows.push_back({row.name, row.layer, row.output, row.parameters, detail::grouped(row.multiply_adds)});
  const std::int64_t field = detail::field_of(run, result);
  table.total = concat("total for one image of ", h, " x ", w, ": ", detail::grouped(detail::count_parameters(net)),
                       " parameters, ", detail::grouped(run.multiply_adds()), " multiply-adds, receptive field ",
                       field == whole_image ? "the whole image" : concat(field, " x ", field),
                       ". A layer with a + runs in one step with the one above it.");
  return table;
}

/// What the program is and runs on.
inline TextPairs environment() {
#if defined(__clang__)
  const std::string compiler = concat("clang ", __clang_version__);
#else
  const std::string compiler = concat("g++ ", __VERSION__);
#endif
  return {{"Strata", STRATA_VERSION},
          {"instruction set", STRATA_ISA},
          {"compiler", compiler},
          {"threads", concat(num_threads())}};
}

namespace detail {

inline std::string base64(std::string_view bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? letters[word >> (18 - 6 * k) & 63u] : '=';
  }
  return out;
}

/// A text for JSON inside a <script>: no '<' that could end it. Bytes that are no UTF-8 become the replacement
/// character.
inline std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = byte < 0x80                   ? 1
                               : byte >= 0xC2 && byte < 0xE0 ? 2
                               : byte >= 0xE0 && byte < 0xF0 ? 3
                               : byte >= 0xF0 && byte < 0xF5 ? 4
                                                             : 0;
    bool whole = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; whole && k < length; ++k) whole = (static_cast<unsigned char>(text[i + k]) & 0xC0) == 0x80;
    if (!whole) {
      out += "\\ufffd";
      ++i;
    } else if (length > 1) {
      out += text.substr(i, length);
      i += length;
    } else {
      char escaped[8];
      if (byte < 0x20 || byte == '<' || byte == '"' || byte == '\\' || byte == 0x7F) {
        std::snprintf(escaped, sizeof escaped, "\\u%04x", unsigned{byte});
        out += escaped;
      } else {
        out += char(byte);
      }
      ++i;
    }
  }
  return out + '"';
}

inline std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  for (char& letter : text)
    if (letter == ',') letter = '.';  // of a locale
  return text;
}

template <class Items, class Text>
std::string json_list(const Items& items, Text&& text) {
  std::string out = "[";
  for (const auto& item : items) out += (out.size() > 1 ? "," : "") + text(item);
  return out + "]";
}

inline std::string json_pairs(const TextPairs& pairs) {
  return json_list(
      pairs, [](const auto& pair) { return concat("[", json_text(pair.first), ",", json_text(pair.second), "]"); });
}

}  // namespace detail

/// The page.
inline std::string report_html(const Report& report) {
  using namespace detail;
  const auto picture = [](std::string_view png) {
    return png.empty() ? std::string("\"\"") : concat("\"data:image/png;base64,", base64(png), "\"");
  };
  std::string json = concat("{\"name\":", json_text(report.name), ",\"state\":", json_text(report.state),
                            ",\"running\":", report.running ? "true" : "false");
  json += ",\"best\":" + json_list(report.best, [](const ReportBest& best) {
            return concat("[", json_text(best.what), ",", json_number(best.value), ",", json_text(best.when), "]");
          });
  json += ",\"series\":" + json_list(report.series, [](const ReportSeries& series) {
            return concat("{\"tag\":", json_text(series.tag),
                          ",\"steps\":", json_list(series.steps, [](std::int64_t step) { return concat(step); }),
                          ",\"values\":", json_list(series.values, json_number), "}");
          });
  json += ",\"pictures\":" + json_list(report.pictures, [&](const ReportPicture& one) {
            return concat("{\"name\":", json_text(one.name),
                          ",\"step\":", one.step ? concat(*one.step) : std::string("null"),
                          ",\"before\":", picture(one.before), ",\"after\":", picture(one.after), "}");
          });
  json += ",\"layers_columns\":" + json_list(report.layers.columns, json_text);
  json += ",\"layers\":" + json_list(report.layers.rows, [](const auto& row) { return json_list(row, json_text); });
  json += concat(",\"layers_total\":", json_text(report.layers.total), ",\"config\":", json_pairs(report.config),
                 ",\"environment\":", json_pairs(report.environment), "}");
  std::string page(report_page);
  constexpr std::string_view place = "{{data}}";
  page.replace(page.find(place), place.size(), json);
  return page;
}

/// Writes the page, whole or not at all. Throws FileError.
inline void write_report(const std::filesystem::path& path, const Report& report) {
  write_file(path, report_html(report));
}

}}  // namespace strata::STRATA_ABI
