// Which tensor of a file, or which two, each of a network's is made of, under given options.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/io/detail/weights_match.hpp"
#include "strata/io/weights_file.hpp"
#include "strata/io/weights_options.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline constexpr std::string_view parallel_prefix = "module.";  // of PyTorch's DataParallel

/// Parts of names that stand for a wrapper of PyTorch's and for no module of the network's own.
inline constexpr std::array<std::string_view, 3> wrappers{"_orig_mod.", "_fsdp_wrapped_module.",
                                                          "_checkpoint_wrapped_module."};

/// The name without the wrapper, wherever that stands in it.
inline std::string without(std::string_view name, std::string_view wrapper) {
  std::string out;
  while (!name.empty()) {
    if (name.starts_with(wrapper)) {
      name.remove_prefix(wrapper.size());
      continue;
    }
    const std::size_t end = std::min(name.find('.'), name.size() - 1) + 1;  // of this part, with its dot
    out += name.substr(0, end);
    name.remove_prefix(end);
  }
  return out;
}

/// One way of bringing a file and a network together.
class WeightsPlan {
 public:
  /// Throws FileError or ValueError when the options do not fit the file. What does not fit the network is in
  /// mismatch().
  WeightsPlan(const WeightsFile& file, const std::vector<NamedTensor>& wanted, const LoadWeightsOptions& options)
      : file_(file), wanted_(wanted), options_(options), zeros_(options.zero.size()) {
    SourceIndex given = given_names();
    take_older_names(given);
    for (const auto& [name, source] : given)
      if (unused_.size() < most_named && !names_wanted(name)) unused_.push_back(name);
    const bool has_halves = std::any_of(wanted.begin(), wanted.end(),
                                        [](const NamedTensor& tensor) { return weight_half(tensor.name).has_value(); });
    if (const std::size_t count = has_halves ? 0 : join_halves(given); count > 0)
      note(concat("weight_norm: ", count, count == 1 ? " weight is" : " weights are",
                  " made of a direction and a length each"));
    const auto absent = [this](std::size_t i, const std::vector<Source>& before, const std::string& where) {
      return without_source(i, before, where);
    };
    sources_ = options.match == Match::by_name ? match_by_name(std::move(given), wanted, mismatch_, absent)
                                               : match_by_order(given, wanted, mismatch_, absent);
    for (std::size_t i = 0; i < wanted.size(); ++i) check_shape(i);
    for (std::size_t i = 0; i < zeros_.size(); ++i)
      if (zeros_[i] == 0)
        throw ValueError(concat(file.path().string(), ": nothing that is missing begins with '", options.zero[i],
                                "', which the option zero gives"));
    if (zeroed_ > 0)
      note(concat("has no bias of a convolution or linear layer: ", first_zeroed_,
                  zeroed_ == 1 ? " is zero" : concat(" and ", zeroed_ - 1, " more are zero")));
  }

  const Mismatch& mismatch() const { return mismatch_; }
  const std::vector<std::string>& notes() const { return notes_; }
  /// Biases that the file has not, and tensors that the network has not: a few of each.
  const std::vector<std::string>& missing_biases() const { return missing_biases_; }
  const std::vector<std::string>& unused() const { return unused_; }

  /// The tensors; the network's own stands for one that may be missing.
  std::vector<AnyTensor> read() const {
    std::vector<AnyTensor> values;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      const AnyTensor& like = *wanted_[i].tensor;
      const Source& source = sources_[i];
      if (source.length != nullptr) {
        values.push_back(joined(source, like));
      } else if (source.tensor != nullptr) {
        values.push_back(file_.read_like(*source.tensor, like));
      } else if (source.zero) {
        AnyTensor value = make_tensor(like, shape_of(like));
        std::memset(bytes_of(value), 0, std::size_t(shape_of(like).size() * row_of(dtype_of(like)).bytes));
        values.push_back(std::move(value));
      } else {
        values.push_back(like);
      }
    }
    return values;
  }

 private:
  static constexpr std::size_t most_named = 8;

  bool names_wanted(const std::string& name) const {
    return std::any_of(wanted_.begin(), wanted_.end(), [&](const NamedTensor& tensor) { return tensor.name == name; });
  }
  void note(const std::string& what) { notes_.push_back(file_.path().string() + ": " + what); }

  bool any_wanted(std::string_view part) const {
    return std::any_of(wanted_.begin(), wanted_.end(),
                       [&](const NamedTensor& tensor) { return tensor.name.find(part) != std::string::npos; });
  }

  /// The names without the wrappers that nobody speaks of, in the file's order.
  std::vector<std::string> unwrapped() {
    const auto spoken_of = [&](std::string_view wrapper) {
      const std::string_view bare = wrapper.substr(0, wrapper.size() - 1);
      const auto names = [&](const std::string& text) { return text.find(bare) != std::string::npos; };
      return any_wanted(wrapper) || names(options_.prefix) ||
             std::any_of(options_.ignore.begin(), options_.ignore.end(), names) ||
             std::any_of(options_.rename.begin(), options_.rename.end(),
                         [&](const Rename& rule) { return names(rule.from); });
    };
    std::vector<std::string> names;
    for (const TensorInfo& tensor : file_.tensors()) names.push_back(tensor.name);
    for (const std::string_view wrapper : wrappers) {
      if (spoken_of(wrapper)) continue;
      bool found = false;
      for (std::string& name : names)
        if (std::string bare = without(name, wrapper); bare != name) {
          name = std::move(bare);
          found = true;
        }
      if (found) note(concat("names are read without '", wrapper, "', which a wrapper of PyTorch added"));
    }
    return names;
  }

  /// The prefix that is dropped: the option's, a checkpoint's, or DataParallel's.
  std::string prefix_of(const std::vector<std::string>& names) {
    if (!options_.prefix.empty()) return options_.prefix;
    if (file_.metadata().contains(std::string(checkpoint_format))) return std::string(network_prefix);
    const auto has_prefix = [](const std::string& name) { return name.starts_with(parallel_prefix); };
    const auto is_count = [](const std::string& name) {
      return name == "n_averaged";
    };  // of AveragedModel, beside its module
    const bool theirs = std::all_of(names.begin(), names.end(),
                                    [&](const std::string& name) { return has_prefix(name) || is_count(name); });
    const bool ours =
        std::all_of(wanted_.begin(), wanted_.end(), [&](const NamedTensor& tensor) { return has_prefix(tensor.name); });
    if (!theirs || ours || std::none_of(names.begin(), names.end(), has_prefix)) return {};
    note(concat("names are read without '", parallel_prefix, "'"));
    return std::string(parallel_prefix);
  }

  /// The file's tensors under the names that the options give them. What is no tensor is noted.
  SourceIndex given_names() {
    const std::vector<std::string> names = unwrapped();
    const std::string prefix = prefix_of(names);
    std::vector<std::size_t> renames(options_.rename.size()), ignores(options_.ignore.size());
    /// The name a tensor goes by; nothing for one that is left out.
    const auto name_of = [&](const std::string& name) -> std::optional<std::string> {
      if (!name.starts_with(prefix)) return std::nullopt;
      const std::string bare = name.substr(prefix.size());
      for (std::size_t i = 0; i < ignores.size(); ++i)
        if (begins(bare, options_.ignore[i])) {
          ++ignores[i];
          return std::nullopt;
        }
      return renamed(bare, options_.rename, renames);
    };
    SourceIndex given;
    bool any = false;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const TensorInfo& tensor = file_.tensors()[i];
      any = any || names[i].starts_with(prefix);
      const std::optional<std::string> name = name_of(names[i]);
      if (!name) continue;
      if (const auto [found, fresh] = given.emplace(*name, Source{.tensor = &tensor}); !fresh)
        throw ValueError(concat(
            file_.path().string(), ": ", options_.rename.empty() ? "dropping prefixes" : "the option rename", " makes ",
            shown(*name), " of both ", shown(found->second.tensor->name), " and ", shown(tensor.name)));
    }
    if (!any && !prefix.empty())
      throw FileError(file_.path().string() + ": none of its " + std::to_string(file_.tensors().size()) +
                      " tensors begins with '" + prefix + "'");
    for (const auto& [other, kind] : file_.others()) {
      const std::optional<std::string> name = name_of(other);
      if (!name) continue;
      if (names_wanted(*name)) {
        mismatch_.different("the file's " + shown(other) + " is " + kind + ", and no tensor that is read here");
        no_tensors_.push_back(*name);
      } else {
        mismatch_.unexpected(shown(other) + " (" + kind + ", no tensor)");
        if (unused_.size() < most_named) unused_.push_back(*name);
      }
    }
    for (std::size_t i = 0; i < renames.size(); ++i)
      check_used(file_.path(), "rename", options_.rename[i].from, renames[i]);
    for (std::size_t i = 0; i < ignores.size(); ++i) check_used(file_.path(), "ignore", options_.ignore[i], ignores[i]);
    return given;
  }

  /// Gives what torch.nn.utils.parametrizations wrote the names that the network has for it.
  void take_older_names(SourceIndex& given) {
    const auto wants = [&](const std::string& name) {
      if (options_.match == Match::by_name) return names_wanted(name);
      return std::any_of(wanted_.begin(), wanted_.end(), [&](const NamedTensor& tensor) {
        return split_name(tensor.name).second == split_name(name).second;
      });
    };
    std::vector<std::pair<std::string, std::string>> changes;
    for (const auto& [name, source] : given)
      if (std::string older = unparametrized(name);
          older != name && wants(older) && !names_wanted(name) && !given.contains(older))
        changes.emplace_back(name, std::move(older));
    for (auto& [name, older] : changes) {
      auto node = given.extract(name);
      node.key() = std::move(older);
      given.insert(std::move(node));
    }
    if (!changes.empty())
      note(concat("names of parametrizations are read as torch.nn.utils.spectral_norm and weight_norm have them: ",
                  changes.size(), " tensors"));
  }

  /// Whether no convolution or linear layer of the file has a bias. One whose weight is of another kind counts as such.
  bool has_no_bias() {
    if (!no_bias_) {
      no_bias_ = std::none_of(file_.tensors().begin(), file_.tensors().end(), [&](const TensorInfo& tensor) {
        const auto [layer, part] = split_name(tensor.name);
        if (part != "bias") return false;
        const TensorInfo* weight = file_.find(layer.empty() ? "weight" : std::string(layer) + ".weight");
        return weight == nullptr || weight->shape.rank() > 1 || !weight->unreadable.empty();
      });
    }
    return *no_bias_;
  }

  /// What stands for a tensor that the file has not. `before`: the sources of those before it.
  Source without_source(std::size_t i, const std::vector<Source>& before, const std::string& where) {
    const std::string& name = wanted_[i].name;
    if (may_be_missing(name)) return {};
    if (std::find(no_tensors_.begin(), no_tensors_.end(), name) != no_tensors_.end()) return {};
    for (std::size_t rule = 0; rule < zeros_.size(); ++rule)
      if (begins(name, options_.zero[rule])) {
        ++zeros_[rule];
        return {.zero = true};
      }
    // A bias, after the weight of its layer, which is there and no norm's.
    const auto [layer, part] = split_name(name);
    const bool is_bias = part == "bias" && i > 0 &&
                         split_name(wanted_[i - 1].name) == std::pair(layer, std::string_view("weight")) &&
                         before[i - 1].tensor != nullptr && shape_of(*wanted_[i - 1].tensor).rank() > 1;
    if (is_bias && has_no_bias()) {
      if (zeroed_++ == 0) first_zeroed_ = name;
      return {.zero = true};
    }
    if (part == "bias" && missing_biases_.size() < most_named) missing_biases_.push_back(name);
    mismatch_.missing(describe(wanted_[i]) + where);
    return {};
  }

  void check_shape(std::size_t i) {
    const TensorInfo* tensor = sources_[i].tensor;
    if (tensor == nullptr || (tensor->unreadable.empty() && tensor->shape == shape_of(*wanted_[i].tensor))) return;
    mismatch_.different("the file's " + describe(*tensor) + ", the network's " + describe(wanted_[i]));
  }

  AnyTensor joined(const Source& source, const AnyTensor& like) const {
    const auto fail = [&](std::string_view what) {
      throw FileError(concat(file_.path().string(), ": ", shown(source.tensor->name), what));
    };
    auto value = file_.read<double>(*source.tensor);
    if (!apply_length(value, file_.read<double>(*source.length)))
      fail(": a part of it is zero, which has no direction");
    if (dtype_of(like) == DType::f64) return value;
    if (dtype_of(like) != DType::f32) fail(": wanted whole numbers");
    Tensor<float> rounded(value.shape());
    for (std::int64_t k = 0; k < value.size(); ++k) rounded.data()[k] = float(value.data()[k]);
    return rounded;
  }

  const WeightsFile& file_;
  const std::vector<NamedTensor>& wanted_;
  const LoadWeightsOptions& options_;
  Mismatch mismatch_;
  std::vector<std::string> notes_, no_tensors_, missing_biases_, unused_;
  std::vector<Source> sources_;
  std::vector<std::size_t> zeros_;
  std::optional<bool> no_bias_;
  std::size_t zeroed_ = 0;
  std::string first_zeroed_;
};

}}}  // namespace strata::STRATA_ABI::detail
