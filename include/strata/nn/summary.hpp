// A table of a network: each layer as the forward runs it, with its output's shape, parameters and multiply-adds. A
// layer with a + in front runs in one step with the layer above it when the network is trained (nn/fuse.hpp). One that
// runs several times stands there several times, with its parameters in the first row; one that no visit lists has no
// name.
//
//     std::cout << st::summary(net, {.height = 40, .width = 40});
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/nn/facts.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The image the table is made for.
struct SummaryOptions {
  std::int64_t batch = 1, height = 64, width = 64;
};

namespace detail {

/// What is known of a module before anything runs. Modules are told apart by address and type.
struct ListedModule {
  std::string name;
  std::int64_t parameters = 0;
};
using ListedModules = std::map<std::pair<const void*, const void*>, ListedModule>;

template <class M>
void list_modules(const M& member, const std::string& name, ListedModules& modules) {
  if constexpr (has_visit<M>) {
    modules.emplace(std::pair<const void*, const void*>{&member, &type_mark<M>},
                    ListedModule{name, count_parameters(member)});
    M::visit(member, [&](const auto& child, const auto& part) { list_modules(part, join(name, child), modules); });
  } else if constexpr (!is_leaf<M>) {
    each_part(name, member,
              [&](const std::string& part_name, const auto& part) { list_modules(part, part_name, modules); });
  }
}

class SummarySink : public FollowSink {
 public:
  struct Row {
    std::string name, layer, output, parameters;
    std::int64_t multiply_adds;
  };

  explicit SummarySink(ListedModules modules) : modules_(std::move(modules)) {}

  void ran(const Following& run, const FollowedStep& step) override;
  const std::vector<Row>& rows() const { return rows_; }
  std::int64_t parameters() const { return parameters_; }  ///< in the rows

 private:
  ListedModules modules_;
  std::vector<Row> rows_;
  std::int64_t parameters_ = 0;
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

inline void SummarySink::ran(const Following& run, const FollowedStep& step) {
  if (step.name == nullptr) return;  // arithmetic and the like
  Row row{.name = "-",
          .layer = (step.in_training.place > 0 ? "+ " : "") + step.name(),
          .output = run.shape(step.output).str(),
          .parameters = "0",
          .multiply_adds = step.multiply_adds * run.n()};
  if (const auto found = modules_.find({step.module, step.type}); found != modules_.end()) {
    ListedModule& module = found->second;
    row.name = module.name;
    row.parameters = module.parameters < 0 ? "shared" : grouped(module.parameters);
    if (module.parameters > 0) parameters_ += std::exchange(module.parameters, -1);
  }
  rows_.push_back(std::move(row));
}

/// Lines of columns, the first `left` of which begin at their left.
inline std::string aligned_text(const std::vector<std::vector<std::string>>& table, std::size_t left) {
  std::vector<std::size_t> widths(table[0].size());
  for (const auto& row : table)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : table) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      line += (i >= left ? space + row[i] : row[i] + space) + (i + 1 < row.size() ? "  " : "");
    }
    while (line.ends_with(' ')) line.pop_back();
    text += line + "\n";
  }
  return text;
}

/// The text of the table.
inline std::string summary_text(const SummarySink& sink, std::int64_t parameters, std::int64_t multiply_adds,
                                std::int64_t field) {
  std::vector<std::vector<std::string>> table{
      {"name", "layer", "output (N x C x H x W)", "parameters", "multiply-adds"}};
  for (const SummarySink::Row& row : sink.rows())
    table.push_back({row.name, row.layer, row.output, row.parameters, grouped(row.multiply_adds)});
  std::string text = aligned_text(table, 3);
  if (parameters > sink.parameters())
    text += concat("in no layer that ran: ", grouped(parameters - sink.parameters()), " parameters\n");
  return text + concat("total: ", grouped(parameters), " parameters, ", grouped(multiply_adds),
                       " multiply-adds, receptive field ",
                       field == whole_image ? "the whole image" : concat(field, " x ", field), "\n");
}

}  // namespace detail

/// The table as text, ending in a line with the sums and the receptive field. Throws ShapeError where the image does
/// not suit the network.
template <class Net>
std::string summary(const Net& net, SummaryOptions options = {}) {
  if (options.batch < 1 || options.height < 1 || options.width < 1)
    throw ValueError(concat("summary: batch, height and width must be positive, got ", options.batch, ", ",
                            options.height, ", ", options.width));
  detail::ListedModules modules;
  detail::list_modules(net, "", modules);
  detail::SummarySink sink(std::move(modules));
  detail::Following run(options.batch, &sink);
  Infer pass;
  const int result = detail::follow(run, net, pass, options.height, options.width);
  detail::check_fits("summary", run, options.height, options.width);
  return detail::summary_text(sink, detail::count_parameters(net), run.multiply_adds() * options.batch,
                              detail::field_of(run, result));
}

}}  // namespace strata::STRATA_ABI
