// A network's weights in a safetensors file, with PyTorch's names and layouts: load_state_dict(strict=True) takes them.
//
//     st::save_weights("net.safetensors", net);
//     st::load_weights("net.safetensors", net);
//     st::load_weights("from_pytorch.safetensors", net, {.match = st::Match::by_order});
//
// A file that does not fit is a FileError that lists what is missing, unexpected or of another shape, and the network
// is as it was. Files of float16, bfloat16 or float64 are converted.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/autograd/visit.hpp"
#include "strata/io/safetensors.hpp"

namespace strata::inline STRATA_ABI {

enum class Match {
  by_name,  ///< a tensor of the file goes to the network's of the same name
  /// The k-th layer of the file goes to the k-th layer of the network, whatever their names. A layer is all tensors
  /// whose names share what is before the last dot. The file's layers are taken in natural order of their names
  /// ("model.10" after "model.2"), the network's in the order of its lists; in a layer, "weight" goes to "weight" and
  /// so on. For networks whose PyTorch twin is one nn.Sequential.
  by_order,
};

struct LoadWeightsOptions {
  Match match = Match::by_name;
  /// Takes only the file's tensors that begin with this, and drops it from their names: "net." or "module.". A
  /// checkpoint of Strata needs none: "net." goes without saying.
  std::string prefix = {};
};

namespace detail {

inline constexpr std::string_view checkpoint_format = "strata.checkpoint";  // metadata key; its value is the version
inline constexpr std::string_view network_prefix = "net.";

/// What keeps a file and a network apart, for the text of an error.
class Mismatch {
 public:
  void missing(std::string_view what) { note("missing from the file", what); }
  void unexpected(std::string_view what) { note("unexpected in the file", what); }
  void different(std::string_view what) { note("different", what); }

  /// Throws FileError when anything was noted.
  void check(const std::filesystem::path& path, std::string_view wanted) const {
    if (groups_.empty()) return;
    std::string text = concat(path.string(), ": does not fit ", wanted, "; nothing was changed.");
    for (const auto& [title, entries] : groups_) {
      text += concat("\n  ", title, " (", entries.size(), "):");
      for (std::size_t i = 0; i < entries.size() && i < most; ++i) text += "\n    " + entries[i];
      if (entries.size() > most) text += concat("\n    and ", entries.size() - most, " more");
    }
    throw FileError(text);
  }

 private:
  static constexpr std::size_t most = 20;  // entries shown of each kind

  void note(std::string_view title, std::string_view what) { groups_[std::string(title)].emplace_back(what); }

  std::map<std::string, std::vector<std::string>> groups_;
};

inline std::string describe(const TensorInfo& tensor) {
  return concat(tensor.name, " (", tensor.shape.str(), " ", row_of(tensor.dtype).name, ")");
}
inline std::string describe(const NamedTensor& tensor) {
  return concat(tensor.name, " (", shape_of(*tensor.tensor).str(), " ", row_of(dtype_of(*tensor.tensor)).name, ")");
}

/// A name's part before the last dot, and the part behind it.
inline std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {std::string_view(), name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

/// PyTorch's own loader does without it, since files from before version 0.4.1 have none.
inline bool may_be_missing(std::string_view name) { return split_name(name).second == "num_batches_tracked"; }

/// Order of names in which numbers count as numbers: "model.2" before "model.10".
struct NaturalOrder {
  bool operator()(std::string_view a, std::string_view b) const {
    const std::string_view whole_a = a, whole_b = b;
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto take_number = [&](std::string_view& text) {
      std::size_t end = 0;
      while (end < text.size() && digit(text[end])) ++end;
      std::string_view number = text.substr(0, end);
      text.remove_prefix(end);
      while (number.size() > 1 && number[0] == '0') number.remove_prefix(1);
      return number;
    };
    while (!a.empty() && !b.empty()) {
      if (digit(a[0]) && digit(b[0])) {
        const std::string_view x = take_number(a), y = take_number(b);
        if (x != y) return std::pair(x.size(), x) < std::pair(y.size(), y);
      } else if (a[0] != b[0]) {
        return a[0] < b[0];
      } else {
        a.remove_prefix(1);
        b.remove_prefix(1);
      }
    }
    return a.empty() != b.empty() ? a.empty() : whole_a < whole_b;
  }
};

/// The tensors of a network, in the order of its lists.
template <class Net>
std::vector<NamedTensor> tensors_of(const Net& net, const std::string& prefix = "") {
  std::vector<NamedTensor> tensors;
  for_each_tensor(net, [&](const std::string& name, auto& leaf) {
    tensors.push_back({prefix + name, &std::as_const(leaf).any_value()});
  });
  return tensors;
}
template <class Net>
std::vector<AnyTensor*> values_of(Net& net) {
  std::vector<AnyTensor*> values;
  for_each_tensor(net, [&](const std::string&, auto& leaf) { values.push_back(&leaf.any_value()); });
  return values;
}

/// A tensor of the file, converted to the type of `like`.
inline AnyTensor read_like(const SafetensorsFile& file, const TensorInfo& info, const AnyTensor& like) {
  return std::visit([&]<class T>(const Tensor<T>&) -> AnyTensor { return file.read<T>(info); }, like);
}

/// Pairs each of `wanted` with a tensor of `given` of the same name; null where it may be missing.
inline std::vector<const TensorInfo*> match_by_name(const std::map<std::string, const TensorInfo*>& given,
                                                    const std::vector<NamedTensor>& wanted, Mismatch& mismatch) {
  std::map<std::string, const TensorInfo*> left = given;
  std::vector<const TensorInfo*> matches;
  for (const NamedTensor& tensor : wanted) {
    const auto found = given.find(tensor.name);
    matches.push_back(found == given.end() ? nullptr : found->second);
    if (matches.back() == nullptr && !may_be_missing(tensor.name)) mismatch.missing(describe(tensor));
    left.erase(tensor.name);
  }
  for (const auto& [name, tensor] : left) mismatch.unexpected(describe(*tensor));
  return matches;
}

/// Pairs layers in order; see Match::by_order.
inline std::vector<const TensorInfo*> match_by_order(const std::map<std::string, const TensorInfo*>& given,
                                                     const std::vector<NamedTensor>& wanted, Mismatch& mismatch) {
  using Layer = std::map<std::string, const TensorInfo*>;
  std::map<std::string, Layer, NaturalOrder> file_layers;
  for (const auto& [name, tensor] : given) {
    const auto [layer, part] = split_name(name);
    file_layers[std::string(layer)].emplace(part, tensor);
  }
  std::vector<const TensorInfo*> matches;
  auto layer = file_layers.begin();
  for (std::size_t i = 0; i < wanted.size();) {
    const std::string_view prefix = split_name(wanted[i].name).first;
    Layer left = layer == file_layers.end() ? Layer{} : layer->second;
    for (; i < wanted.size() && split_name(wanted[i].name).first == prefix; ++i) {
      const auto found = left.find(std::string(split_name(wanted[i].name).second));
      matches.push_back(found == left.end() ? nullptr : found->second);
      if (found != left.end())
        left.erase(found);
      else if (!may_be_missing(wanted[i].name))
        mismatch.missing(concat(describe(wanted[i]), layer == file_layers.end()
                                                         ? std::string(": the file has no layer left")
                                                         : concat(", from layer '", layer->first, "' of the file")));
    }
    for (const auto& [part, tensor] : left)
      mismatch.unexpected(concat(describe(*tensor), ", for layer '", prefix, "' of the network"));
    if (layer != file_layers.end()) ++layer;
  }
  for (; layer != file_layers.end(); ++layer)
    for (const auto& [part, tensor] : layer->second)
      mismatch.unexpected(concat(describe(*tensor), ": the network has no layer left"));
  return matches;
}

/// Reads a tensor for each of `wanted`, none where it may be missing. Throws FileError when the file does not fit.
inline std::vector<std::optional<AnyTensor>> read_weights(const SafetensorsFile& file,
                                                          const std::vector<NamedTensor>& wanted,
                                                          const LoadWeightsOptions& options) {
  std::string prefix = options.prefix;
  if (prefix.empty() && file.metadata().contains(std::string(checkpoint_format))) prefix = network_prefix;
  if (file.has_checksum()) file.verify_checksum();
  std::map<std::string, const TensorInfo*> given;
  for (const TensorInfo& tensor : file.tensors())
    if (tensor.name.starts_with(prefix)) given.emplace(tensor.name.substr(prefix.size()), &tensor);
  if (given.empty() && !prefix.empty())
    throw FileError(concat(file.path().string(), ": none of its ", file.tensors().size(), " tensors begins with '",
                           prefix, "'"));

  Mismatch mismatch;
  const auto matches = options.match == Match::by_name ? match_by_name(given, wanted, mismatch)
                                                       : match_by_order(given, wanted, mismatch);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (matches[i] != nullptr && matches[i]->shape != shape_of(*wanted[i].tensor))
      mismatch.different(concat("the file's ", describe(*matches[i]), ", the network's ", describe(wanted[i])));
  mismatch.check(file.path(), "the network");

  std::vector<std::optional<AnyTensor>> values(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (matches[i] != nullptr) values[i] = read_like(file, *matches[i], *wanted[i].tensor);
  return values;
}

/// Copies numbers between tensors of the same type and shape; other handles on `to` see them.
inline void copy_into(AnyTensor& to, const AnyTensor& from) {
  std::visit([&]<class T>(Tensor<T>& t) { std::copy_n(std::get<Tensor<T>>(from).data(), t.size(), t.data()); }, to);
}

}  // namespace detail

/// Writes all parameters and buffers. Throws FileError when the file cannot be written.
template <class Net>
void save_weights(const std::filesystem::path& path, const Net& net, const Metadata& metadata = {}) {
  write_safetensors(path, detail::tensors_of(net), metadata);
}

/// Reads all parameters and buffers, and returns the file's metadata. Throws FileError, listing the differences, when
/// the file does not fit the network, which is then as it was; only num_batches_tracked may be missing.
template <class Net>
Metadata load_weights(const std::filesystem::path& path, Net& net, const LoadWeightsOptions& options = {}) {
  static_assert(!std::is_const_v<Net>, "strata: load_weights changes the network, which must not be const");
  const SafetensorsFile file(path);
  const auto values = detail::read_weights(file, detail::tensors_of(net), options);
  const std::vector<AnyTensor*> targets = detail::values_of(net);
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i]) detail::copy_into(*targets[i], *values[i]);
  return file.metadata();
}

}  // namespace strata::inline STRATA_ABI
