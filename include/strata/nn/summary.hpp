// A table of a network: each layer with its output's shape, parameters and multiply-adds. A layer with a + in front runs
// in one step with the layer above it when the network is trained (nn/fuse.hpp).
//
//     std::cout << st::summary(net, {.height = 40, .width = 40});
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/nn/trace.hpp"

namespace strata::inline STRATA_ABI {

/// The image the table is made for.
struct SummaryOptions {
  std::int64_t batch = 1, height = 64, width = 64;
};

namespace detail {

struct SummaryRow {
  std::string name, layer, output;
  std::int64_t parameters, multiply_adds;
};

struct SummarySink {
  std::int64_t batch;
  std::vector<std::string> path;
  std::vector<SummaryRow> rows;

  void enter(const auto& name, const Extents&) { path.push_back(join(path.empty() ? std::string() : path.back(), name)); }
  void leave() { path.pop_back(); }
  template <class M>
  void layer(const Extents& before, const Extents& after, const FusedStep& step) {
    if (!after.valid)
      throw ShapeError(concat("summary: the image has ", before.h, " x ", before.w, " pixels at ", M::name(),
                              ", too few for it: give a larger height and width"));
    rows.push_back({path.empty() ? "" : path.back(), (step.place > 0 ? "+ " : "") + M::name(), Shape{batch, after.c, after.h, after.w}.str(),
                    after.parameters - before.parameters, (after.multiply_adds - before.multiply_adds) * batch});
  }
};

/// 1234567 -> "1,234,567".
inline std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

}  // namespace detail

/// The table as text, ending in a line with the sums and the receptive field.
template <class Net>
std::string summary(const Net&, SummaryOptions options = {}) {
  if (options.batch < 1 || options.height < 1 || options.width < 1)
    throw ValueError(concat("summary: batch, height and width must be positive, got ", options.batch, ", ", options.height,
                            ", ", options.width));
  detail::Tracer<detail::SummarySink> tracer(
      Extents{.c = detail::input_channels<Net>(), .h = options.height, .w = options.width},
      detail::SummarySink{options.batch, {}, {}});
  tracer.template run<Net>();
  std::vector<std::vector<std::string>> table{{"name", "layer", "output (N x C x H x W)", "parameters", "multiply-adds"}};
  for (const detail::SummaryRow& row : tracer.sink().rows)
    table.push_back({row.name, row.layer, row.output, detail::grouped(row.parameters), detail::grouped(row.multiply_adds)});
  std::vector<std::size_t> widths(table[0].size());
  for (const auto& row : table)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : table) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      line += (i >= 3 ? space + row[i] : row[i] + space) + (i + 1 < row.size() ? "  " : "");
    }
    while (line.ends_with(' ')) line.pop_back();
    text += line + "\n";
  }
  const Extents& end = tracer.extents();
  return text + concat("total: ", detail::grouped(end.parameters), " parameters, ",
                       detail::grouped(end.multiply_adds * options.batch), " multiply-adds, receptive field ",
                       detail::round_up(end.field), " x ", detail::round_up(end.field), "\n");
}

}  // namespace strata::inline STRATA_ABI
