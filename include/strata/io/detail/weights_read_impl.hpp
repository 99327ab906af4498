// Definitions of io/detail/weights_read.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/detail/elements.hpp"
#include "strata/io/detail/weights_plan.hpp"
#include "strata/io/detail/weights_read.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// A plan with these options when nothing keeps file and network apart then; nothing otherwise.
inline std::optional<WeightsPlan> fitting_plan(const WeightsFile& file, const std::vector<NamedTensor>& wanted,
                                               const LoadWeightsOptions& options) {
  try {
    WeightsPlan plan(file, wanted, options);
    if (plan.mismatch().empty()) return plan;
  } catch (const FileError&) {
  } catch (const ValueError&) {
  }
  return std::nullopt;
}

/// The beginnings, with their dots, that differ between a name of the file and one of the network that end alike.
inline std::pair<std::string, std::string> different_beginnings(std::string_view theirs, std::string_view ours) {
  while (true) {
    const auto [their_rest, their_part] = split_name(theirs);
    const auto [our_rest, our_part] = split_name(ours);
    if (their_part != our_part) return {std::string(theirs), std::string(ours)};
    theirs = their_rest, ours = our_rest;
    if (theirs.empty() || ours.empty()) return {std::string(theirs), std::string(ours)};
  }
}

/// Which beginnings of names in the file might stand for which of the network's: those that its first tensor suggests.
inline std::vector<Rename> likely_renames(const WeightsFile& file, const NamedTensor& first) {
  constexpr std::size_t most = 8;
  std::vector<Rename> rules;
  for (const TensorInfo& tensor : file.tensors()) {
    if (tensor.shape != shape_of(*first.tensor)) continue;
    std::string theirs = tensor.name;
    if (split_name(theirs).second != split_name(first.name).second) theirs = unparametrized(theirs);
    if (split_name(theirs).second != split_name(first.name).second) continue;
    const auto beginnings = different_beginnings(theirs, first.name);
    const auto same = [&](const Rename& rule) { return std::pair(rule.from, rule.to) == beginnings; };
    if (beginnings.first == beginnings.second || std::any_of(rules.begin(), rules.end(), same)) continue;
    rules.push_back({beginnings.first, beginnings.second});
    if (rules.size() == most) break;
  }
  return rules;
}

/// What to do about a file that does not fit: options with which it would, or what its names say. `plan` is with the
/// options as they are.
inline std::string load_hint(const WeightsFile& file, const WeightsPlan& plan, const LoadWeightsOptions& options,
                             const NamedTensors& named) {
  constexpr std::size_t most_tensors = 20'000;
  std::string hint;
  const auto quoted = [](std::string_view name) {
    std::string text = shown(name);
    text.front() = text.back() = '"';
    return text;
  };
  const auto try_with = [&](const LoadWeightsOptions& changed, const std::string& text) {
    const std::vector<NamedTensor> wanted = named(changed.names);
    if (hint.empty() && fitting_plan(file, wanted, changed)) hint = "\n  It fits with {" + text + "}";
  };
  if (file.tensors().size() <= most_tensors && options.match == Match::by_name) {
    for (const Names names : {Names::nested, Names::spliced}) {
      LoadWeightsOptions changed = options;
      changed.names = names;
      const std::string said = names == options.names   ? ""
                               : names == Names::nested ? ".names = st::Names::nested"
                                                        : ".names = st::Names::spliced";
      if (!said.empty()) try_with(changed, said);
      const std::vector<NamedTensor> wanted = named(names);
      if (wanted.empty() || !options.rename.empty() || !options.prefix.empty()) continue;
      for (const Rename& rule : likely_renames(file, wanted[0])) {
        const std::string also = said.empty() ? "" : said + ", ";
        changed.prefix = rule.to.empty() ? rule.from + "." : "";
        if (rule.to.empty()) changed.ignore.clear();  // what has no prefix is left out anyway
        changed.rename = rule.to.empty() ? std::vector<Rename>{} : std::vector{rule};
        try_with(changed,
                 also + (rule.to.empty() ? ".prefix = " + quoted(changed.prefix)
                                         : ".rename = {{" + quoted(rule.from) + ", " + quoted(rule.to) + "}}"));
        changed.ignore = options.ignore;
      }
    }
    LoadWeightsOptions by_order = options;
    by_order.match = Match::by_order;
    try_with(by_order, ".match = st::Match::by_order");
    const auto try_more = [&](auto field, const std::string& said, const std::vector<std::string>& names) {
      LoadWeightsOptions changed = options;
      std::string text;
      for (const std::string& name : names) {
        (changed.*field).push_back(name);
        text += (text.empty() ? "" : ", ") + quoted(name);
      }
      if (!names.empty()) try_with(changed, said + " = {" + text + "}");
    };
    try_more(&LoadWeightsOptions::zero, ".zero", plan.missing_biases());
    try_more(&LoadWeightsOptions::ignore, ".ignore", plan.unused());
  }
  const auto any = [&](auto&& holds) { return std::any_of(file.tensors().begin(), file.tensors().end(), holds); };
  const auto ends = [](const TensorInfo& tensor, std::string_view end) {
    return split_name(tensor.name).second == end;
  };
  if (any([&](const TensorInfo& t) {
        return ends(t, "weight_orig") || t.name.ends_with("parametrizations.weight.original");
      }))
    hint +=
        "\n  Its weights are kept as spectral_norm or another parametrization has them. Wrap the layer in "
        "st::SpectralNorm (nn/spectral_norm.hpp), which takes them, or, in Python, for each such layer before the "
        "network is saved: torch.nn.utils.remove_spectral_norm(layer) where the names are weight_orig, else "
        "torch.nn.utils.parametrize.remove_parametrizations(layer, \"weight\")";
  else if (any([](const TensorInfo& t) { return weight_half(t.name).has_value(); }) && hint.empty())
    hint +=
        "\n  Some of its weights are kept as weight_norm has them: weight_g and weight_v become weight where both are "
        "there and fit";
  return hint;
}

STRATA_INLINE std::vector<AnyTensor> read_weights(const WeightsFile& file, const LoadWeightsOptions& options,
                                                  const NamedTensors& named, std::vector<std::string>& notes) {
  file.verify_checksums();
  const std::vector<NamedTensor> wanted = named(options.names);
  const auto take = [&](const WeightsPlan& plan) {
    notes.insert(notes.end(), plan.notes().begin(), plan.notes().end());
    return plan.read();
  };
  const WeightsPlan plan(file, wanted, options);
  if (plan.mismatch().empty()) return take(plan);
  // A beginning that all names share, as Lightning's "model.", when nothing else is in the way.
  if (options.prefix.empty() && options.rename.empty() && options.match == Match::by_name && !wanted.empty())
    for (const Rename& rule : likely_renames(file, wanted[0])) {
      LoadWeightsOptions without = options;
      without.prefix = rule.from + ".";
      const auto begins_so = [&](const TensorInfo& tensor) { return tensor.name.starts_with(without.prefix); };
      if (!rule.to.empty() || !std::all_of(file.tensors().begin(), file.tensors().end(), begins_so)) continue;
      if (const auto fitting = fitting_plan(file, wanted, without)) {
        notes.push_back(concat(file.path().string(), ": names are read without ", shown(without.prefix),
                               ", which all of them begin with"));
        return take(*fitting);
      }
    }
  plan.mismatch().throw_if_any(file.path(), "the network", load_hint(file, plan, options, named));
  return {};  // not reached: it throws
}

STRATA_INLINE void copy_into(AnyTensor& to, const AnyTensor& from) {
  std::visit([&]<class T>(Tensor<T>& target) { copy_numbers(target, std::get<Tensor<T>>(from)); }, to);
}

STRATA_INLINE void copy_all(const std::vector<AnyTensor*>& targets, const std::vector<AnyTensor>& values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (bytes_of(values[i]) != bytes_of(*targets[i])) copy_into(*targets[i], values[i]);
}

STRATA_INLINE void rename_tensors(const std::filesystem::path& path, std::vector<NamedTensor>& tensors,
                                  const std::vector<Rename>& rules) {
  std::vector<std::size_t> renames(rules.size());
  for (NamedTensor& tensor : tensors) tensor.name = renamed(tensor.name, rules, renames);
  for (std::size_t i = 0; i < renames.size(); ++i) check_used(path, "rename", rules[i].from, renames[i]);
}

}}}  // namespace strata::STRATA_ABI::detail
