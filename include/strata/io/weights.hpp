// A network's weights in files: safetensors both ways, with PyTorch's names and layouts so that load_state_dict(strict=True)
// takes them, and what torch.save wrote (io/pytorch_file.hpp) read too.
//
//     st::save_weights("net.safetensors", net);
//     st::load_weights("net.safetensors", net);
//     st::load_weights("from_pytorch.pth", net, {.names = st::Names::spliced, .rename = {{"model", "body"}}});
//     st::load_weights("from_pytorch.pth", net, {.match = st::Match::by_order});
//
// A file that does not fit is a FileError that lists what is missing, unexpected or of another shape, and the network
// is as it was. Files of float16, bfloat16 or float64 are converted.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/autograd/visit.hpp"
#include "strata/io/names.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights_file.hpp"

namespace strata::inline STRATA_ABI {

enum class Match {
  by_name,  ///< a tensor of the file goes to the network's of the same name
  /// The k-th layer of the file goes to the k-th layer of the network, whatever their names. A layer is all tensors
  /// whose names share what is before the last dot. The file's layers are taken in natural order of their names
  /// ("model.10" after "model.2"), the network's in the order of its lists; in a layer, "weight" goes to "weight" and
  /// so on. For networks whose PyTorch twin is one nn.Sequential.
  by_order,
};

/// How the names of a file become those of the network: first the prefix is dropped, then names are left out, then renamed.
struct LoadWeightsOptions {
  Match match = Match::by_name;
  /// Takes only the file's tensors that begin with this, and drops it from their names: "net." or "module.". Two prefixes
  /// need not be given: a checkpoint's "net.", and the "module." of PyTorch's DataParallel where all names have it and the
  /// network's have not.
  std::string prefix = {};
  std::string key = {};             ///< which dict of a .pth file: see io/pytorch_file.hpp
  Names names = Names::nested;      ///< what the network's tensors are called
  std::vector<Rename> rename = {};  ///< the first that fits a name counts; one that fits none is an error
  /// Names, or their beginnings before a dot, that are left out; one that fits none is an error.
  std::vector<std::string> ignore = {};
};

struct SaveWeightsOptions {
  Names names = Names::nested;
  std::vector<Rename> rename = {};  ///< from the network's names to the file's, as in LoadWeightsOptions
};

namespace detail {

inline constexpr std::string_view checkpoint_format = "strata.checkpoint";  // metadata key; its value is the version
inline constexpr std::string_view network_prefix = "net.";
inline constexpr std::string_view parallel_prefix = "module.";  // of PyTorch's DataParallel

/// What keeps a file and a network apart, for the text of an error.
class Mismatch {
 public:
  void missing(std::string what) { entries_[0].push_back(std::move(what)); }
  void unexpected(std::string what) { entries_[1].push_back(std::move(what)); }
  void different(std::string what) { entries_[2].push_back(std::move(what)); }

  /// Throws FileError when anything was noted.
  void throw_if_any(const std::filesystem::path& path, std::string_view wanted) const {
    std::string text;
    for (std::size_t kind = 0; kind < entries_.size(); ++kind) {
      const std::vector<std::string>& entries = entries_[kind];
      if (entries.empty()) continue;
      text += "\n  " + std::string(titles[kind]) + " (" + std::to_string(entries.size()) + "):";
      for (std::size_t i = 0; i < entries.size() && i < most; ++i) text += "\n    " + entries[i];
      if (entries.size() > most) text += "\n    and " + std::to_string(entries.size() - most) + " more";
    }
    if (text.empty()) return;
    throw FileError(path.string() + ": does not fit " + std::string(wanted) + "; nothing was changed." + text);
  }

 private:
  static constexpr std::size_t most = 20;  // entries shown of each kind
  static constexpr std::array<std::string_view, 3> titles{"missing from the file", "unexpected in the file",
                                                          "different"};

  std::array<std::vector<std::string>, 3> entries_;
};

inline std::string describe(const std::string& name, const Shape& shape, DType type) {
  return name + " (" + shape.str() + " " + std::string(row_of(type).name) + ")";
}
inline std::string describe(const TensorInfo& tensor) { return describe(tensor.name, tensor.shape, tensor.dtype); }
inline std::string describe(const NamedTensor& tensor) {
  return describe(tensor.name, shape_of(*tensor.tensor), dtype_of(*tensor.tensor));
}

/// A name's part before the last dot, and the part behind it.
inline std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {std::string_view(), name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

/// PyTorch's own loader does without it, since files from before version 0.4.1 have none.
inline bool may_be_missing(std::string_view name) { return split_name(name).second == "num_batches_tracked"; }

/// Takes the digits at the start of `text`, and returns them without leading zeros.
inline std::string_view take_number(std::string_view& text) {
  std::size_t end = 0;
  while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
  std::string_view number = text.substr(0, end);
  text.remove_prefix(end);
  while (number.size() > 1 && number[0] == '0') number.remove_prefix(1);
  return number;
}

/// Order of names in which numbers count as numbers: "model.2" before "model.10".
inline bool natural_before(std::string_view a, std::string_view b) {
  const std::string_view whole_a = a, whole_b = b;
  while (!a.empty() && !b.empty()) {
    const std::string_view x = take_number(a), y = take_number(b);
    if (x.empty() != y.empty()) return (x.empty() ? a[0] : x[0]) < (y.empty() ? b[0] : y[0]);
    if (x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
    if (!x.empty()) continue;
    if (a[0] != b[0]) return a[0] < b[0];
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  return a.empty() != b.empty() ? a.empty() : whole_a < whole_b;
}

template <class Net>
std::vector<AnyTensor*> values_of(Net& net) {
  std::vector<AnyTensor*> values;
  for_each_tensor(net, [&](const std::string&, auto& leaf) { values.push_back(&leaf.any_value()); });
  return values;
}

/// Pairs each of `wanted` with a tensor of `given` of the same name; null where it may be missing.
inline std::vector<const TensorInfo*> match_by_name(TensorIndex given, const std::vector<NamedTensor>& wanted,
                                                    Mismatch& mismatch) {
  std::vector<const TensorInfo*> matches;
  for (const NamedTensor& tensor : wanted) {
    const auto found = given.find(tensor.name);
    matches.push_back(found == given.end() ? nullptr : found->second);
    if (found != given.end())
      given.erase(found);
    else if (!may_be_missing(tensor.name))
      mismatch.missing(describe(tensor));
  }
  for (const auto& [name, tensor] : given) mismatch.unexpected(describe(*tensor));
  return matches;
}

/// Pairs layers in order; see Match::by_order.
inline std::vector<const TensorInfo*> match_by_order(const TensorIndex& given, const std::vector<NamedTensor>& wanted,
                                                     Mismatch& mismatch) {
  std::vector<std::pair<std::string_view, const TensorInfo*>> file;  // name without prefix, in natural order of layers
  for (const auto& [name, tensor] : given) file.emplace_back(name, tensor);
  std::sort(file.begin(), file.end(), [](const auto& a, const auto& b) {
    const auto [layer_a, part_a] = split_name(a.first);
    const auto [layer_b, part_b] = split_name(b.first);
    return layer_a != layer_b ? natural_before(layer_a, layer_b) : part_a < part_b;
  });
  std::vector<const TensorInfo*> matches;
  std::size_t first = 0;  // of the file's present layer
  for (std::size_t i = 0; i < wanted.size();) {
    const std::string_view ours = split_name(wanted[i].name).first;
    const std::string_view theirs = first < file.size() ? split_name(file[first].first).first : std::string_view();
    std::size_t end = first;
    while (end < file.size() && split_name(file[end].first).first == theirs) ++end;
    std::vector<bool> used(end - first);
    for (; i < wanted.size() && split_name(wanted[i].name).first == ours; ++i) {
      matches.push_back(nullptr);
      for (std::size_t k = first; k < end; ++k)
        if (split_name(file[k].first).second == split_name(wanted[i].name).second) {
          matches.back() = file[k].second;
          used[k - first] = true;
        }
      if (matches.back() == nullptr && !may_be_missing(wanted[i].name))
        mismatch.missing(describe(wanted[i]) + (first == end
                                                    ? std::string(": the file has no layer left")
                                                    : ", from layer '" + std::string(theirs) + "' of the file"));
    }
    for (std::size_t k = first; k < end; ++k)
      if (!used[k - first])
        mismatch.unexpected(describe(*file[k].second) + ", for layer '" + std::string(ours) + "' of the network");
    first = end;
  }
  for (; first < file.size(); ++first)
    mismatch.unexpected(describe(*file[first].second) + ": the network has no layer left");
  return matches;
}

/// Throws ValueError for a rule that no name was of: most likely it is misspelt.
inline void check_used(const std::filesystem::path& path, std::string_view option, std::string_view rule,
                       std::size_t count) {
  if (count == 0)
    throw ValueError(concat(path.string(), ": no name begins with '", rule, "', which the option ", option, " gives"));
}

/// The file's tensors under the names that the options give them, and what is no tensor. Throws FileError or ValueError
/// when the options do not fit the file.
inline TensorIndex given_names(const WeightsFile& file, const std::vector<NamedTensor>& wanted,
                               const LoadWeightsOptions& options, Mismatch& mismatch) {
  const auto all_begin_with = [](const auto& tensors, std::string_view prefix) {
    return std::all_of(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name.starts_with(prefix); });
  };
  std::string prefix = options.prefix;
  if (prefix.empty() && file.metadata().contains(std::string(checkpoint_format))) prefix = network_prefix;
  if (prefix.empty() && all_begin_with(file.tensors(), parallel_prefix) && !all_begin_with(wanted, parallel_prefix))
    prefix = parallel_prefix;

  std::vector<std::size_t> renames(options.rename.size()), ignores(options.ignore.size());
  /// The name a tensor goes by; nothing for one that is left out.
  const auto name_of = [&](const std::string& name) -> std::optional<std::string> {
    if (!name.starts_with(prefix)) return std::nullopt;
    const std::string bare = name.substr(prefix.size());
    for (std::size_t i = 0; i < ignores.size(); ++i)
      if (begins(bare, options.ignore[i])) {
        ++ignores[i];
        return std::nullopt;
      }
    return renamed(bare, options.rename, renames);
  };
  TensorIndex given;
  bool any = false;
  for (const TensorInfo& tensor : file.tensors()) {
    any = any || tensor.name.starts_with(prefix);
    const std::optional<std::string> name = name_of(tensor.name);
    if (!name) continue;
    if (const auto [found, fresh] = given.emplace(*name, &tensor); !fresh)
      throw ValueError(concat(file.path().string(), ": the option rename makes ", shown(*name), " of both ",
                              shown(found->second->name), " and ", shown(tensor.name)));
  }
  if (!any && !prefix.empty())
    throw FileError(file.path().string() + ": none of its " + std::to_string(file.tensors().size()) +
                    " tensors begins with '" + prefix + "'");
  for (const auto& [name, kind] : file.others())
    if (name_of(name)) mismatch.unexpected(shown(name) + " (" + kind + ", no tensor)");
  for (std::size_t i = 0; i < renames.size(); ++i) check_used(file.path(), "rename", options.rename[i].from, renames[i]);
  for (std::size_t i = 0; i < ignores.size(); ++i) check_used(file.path(), "ignore", options.ignore[i], ignores[i]);
  return given;
}

/// Reads a tensor for each of `wanted`; the tensor itself stands for one that may be missing. Throws FileError when the
/// file does not fit.
inline std::vector<AnyTensor> read_weights(const WeightsFile& file, const std::vector<NamedTensor>& wanted,
                                           const LoadWeightsOptions& options) {
  file.verify_checksums();
  Mismatch mismatch;
  const TensorIndex given = given_names(file, wanted, options, mismatch);
  const auto matches = options.match == Match::by_name ? match_by_name(given, wanted, mismatch)
                                                       : match_by_order(given, wanted, mismatch);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (matches[i] != nullptr && matches[i]->shape != shape_of(*wanted[i].tensor))
      mismatch.different("the file's " + describe(*matches[i]) + ", the network's " + describe(wanted[i]));
  mismatch.throw_if_any(file.path(), "the network");

  std::vector<AnyTensor> values;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    values.push_back(matches[i] == nullptr ? *wanted[i].tensor : file.read_like(*matches[i], *wanted[i].tensor));
  return values;
}

/// Copies numbers between tensors of the same type and shape, each on its device; other handles on `to` see them.
inline void copy_into(AnyTensor& to, const AnyTensor& from) {
  std::visit([&]<class T>(Tensor<T>& target) { copy_numbers(target, std::get<Tensor<T>>(from)); }, to);
}

}  // namespace detail

/// Writes all parameters and buffers as a safetensors file. Throws FileError when it cannot be written, ValueError for a
/// rename that fits no name or makes two the same.
template <class Net>
void save_weights(const std::filesystem::path& path, const Net& net, const Metadata& metadata = {},
                  const SaveWeightsOptions& options = {}) {
  std::vector<NamedTensor> tensors = detail::tensors_of(net, "", options.names);
  std::vector<std::size_t> renames(options.rename.size());
  for (NamedTensor& tensor : tensors) tensor.name = detail::renamed(tensor.name, options.rename, renames);
  for (std::size_t i = 0; i < renames.size(); ++i) detail::check_used(path, "rename", options.rename[i].from, renames[i]);
  write_safetensors(path, tensors, metadata);
}

/// Reads all parameters and buffers from a safetensors file, a checkpoint, or a file of torch.save, and returns the file's
/// metadata. Throws FileError, listing the differences, when the file does not fit the network, which is then as it was;
/// only num_batches_tracked may be missing.
template <class Net>
Metadata load_weights(const std::filesystem::path& path, Net& net, const LoadWeightsOptions& options = {}) {
  static_assert(!std::is_const_v<Net>, "strata: load_weights changes the network, which must not be const");
  const WeightsFile file(path, options.key);
  const auto values = detail::read_weights(file, detail::tensors_of(net, "", options.names), options);
  const std::vector<AnyTensor*> targets = detail::values_of(net);
  for (std::size_t i = 0; i < values.size(); ++i)
    if (detail::bytes_of(values[i]) != detail::bytes_of(*targets[i])) detail::copy_into(*targets[i], values[i]);
  return file.metadata();
}

}  // namespace strata::inline STRATA_ABI
