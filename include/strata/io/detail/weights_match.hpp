// Which tensor of a file goes to which of a network, and what keeps the two apart.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/io/detail/elements.hpp"
#include "strata/io/detail/mismatch.hpp"
#include "strata/io/names.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline std::string describe(const std::string& name, const Shape& shape, DType type) {
  return name + " (" + shape.str() + " " + std::string(row_of(type).name) + ")";
}
inline std::string describe(const TensorInfo& tensor) {
  const std::string bare = shown(tensor.name);  // without its quotes: harmless on a terminal, and not without end
  const std::string name = bare.substr(1, bare.size() - 2);
  return tensor.unreadable.empty() ? describe(name, tensor.shape, tensor.dtype) : name + " (" + tensor.unreadable + ")";
}
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

/// What a tensor of the network is made of: one tensor of the file; two of them, a direction and a length
/// (weight_norm); zeros; or, when all is empty, what it is already.
struct Source {
  const TensorInfo* tensor = nullptr;
  const TensorInfo* length = nullptr;
  bool zero = false;
};
/// A file's tensors by the names that they have for the network.
using SourceIndex = std::map<std::string, Source>;

/// Pairs each of `wanted` with a tensor of `given` of the same name; an empty one where there is none. absent(i) is
/// called for these, with what may be added to a text that says so, and returns what stands for it.
template <class Absent>
std::vector<Source> match_by_name(SourceIndex given, const std::vector<NamedTensor>& wanted, Mismatch& mismatch,
                                  Absent&& absent) {
  std::vector<Source> matches;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto found = given.find(wanted[i].name);
    matches.push_back(found == given.end() ? absent(i, matches, "") : found->second);
    if (found != given.end()) given.erase(found);
  }
  for (const auto& [name, source] : given) mismatch.unexpected(describe(*source.tensor));
  return matches;
}

/// Pairs layers in order; see Match::by_order.
template <class Absent>
std::vector<Source> match_by_order(const SourceIndex& given, const std::vector<NamedTensor>& wanted, Mismatch& mismatch,
                                   Absent&& absent) {
  std::vector<std::pair<std::string_view, Source>> file;  // name without prefix, in natural order of layers
  for (const auto& [name, source] : given) file.emplace_back(name, source);
  std::sort(file.begin(), file.end(), [](const auto& a, const auto& b) {
    const auto [layer_a, part_a] = split_name(a.first);
    const auto [layer_b, part_b] = split_name(b.first);
    return layer_a != layer_b ? natural_before(layer_a, layer_b) : part_a < part_b;
  });
  std::vector<Source> matches;
  std::size_t first = 0;  // of the file's present layer
  for (std::size_t i = 0; i < wanted.size();) {
    const std::string_view ours = split_name(wanted[i].name).first;
    const std::string_view theirs = first < file.size() ? split_name(file[first].first).first : std::string_view();
    std::size_t end = first;
    while (end < file.size() && split_name(file[end].first).first == theirs) ++end;
    std::vector<bool> used(end - first);
    for (; i < wanted.size() && split_name(wanted[i].name).first == ours; ++i) {
      Source source;
      for (std::size_t k = first; k < end; ++k)
        if (split_name(file[k].first).second == split_name(wanted[i].name).second) {
          source = file[k].second;
          used[k - first] = true;
        }
      if (source.tensor == nullptr)
        source = absent(i, matches,
                        first == end ? std::string(": the file has no layer left")
                                     : ", from layer " + shown(theirs) + " of the file");
      matches.push_back(source);
    }
    for (std::size_t k = first; k < end; ++k)
      if (!used[k - first])
        mismatch.unexpected(describe(*file[k].second.tensor) + ", for layer '" + std::string(ours) +
                            "' of the network");
    first = end;
  }
  for (; first < file.size(); ++first)
    mismatch.unexpected(describe(*file[first].second.tensor) + ": the network has no layer left");
  return matches;
}

// ---- weights that PyTorch keeps in two parts

/// The layer of a tensor that is one half of a weight under weight_norm, and whether it is the direction (weight_v) or
/// the length (weight_g); nothing for others. Both ways of PyTorch to write it.
struct WeightHalf {
  std::string layer;
  bool direction = false;
};
inline std::optional<WeightHalf> weight_half(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, bool>, 4> endings{
      {{"weight_g", false},
       {"weight_v", true},
       {"parametrizations.weight.original0", false},
       {"parametrizations.weight.original1", true}}};
  for (const auto& [ending, direction] : endings)
    if (name == ending || (name.ends_with(ending) && name[name.size() - ending.size() - 1] == '.'))
      return WeightHalf{std::string(name.substr(0, name.size() - ending.size())), direction};
  return std::nullopt;
}

/// A tensor's name as torch.nn.utils.weight_norm and spectral_norm have it, and as st::WeightNorm and st::SpectralNorm,
/// for one of torch.nn.utils.parametrizations; others stay as they are.
inline std::string unparametrized(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> endings{
      {{"parametrizations.weight.original0", "weight_g"},
       {"parametrizations.weight.original1", "weight_v"},
       {"parametrizations.weight.original", "weight_orig"},
       {"parametrizations.weight.0._u", "weight_u"},
       {"parametrizations.weight.0._v", "weight_v"}}};
  for (const auto& [ending, older] : endings)
    if (name == ending || (name.ends_with(ending) && name[name.size() - ending.size() - 1] == '.'))
      return std::string(name.substr(0, name.size() - ending.size())).append(older);
  return std::string(name);
}

/// The axis along which each part of a weight has a length of its own: -1 for one length of all; -2 where the shapes do
/// not fit.
inline int length_axis(const Shape& direction, const Shape& length) {
  if (length.size() == 1 && (length.rank() == 0 || length.rank() == direction.rank())) return -1;
  int axis = -2;
  if (length.rank() != direction.rank()) return axis;
  for (int i = 0; i < length.rank(); ++i) {
    if (length[i] == 1) continue;
    if (length[i] != direction[i] || axis >= 0) return -2;
    axis = i;
  }
  return axis;
}

/// Puts the halves of each weight together, under the weight's own name. Returns how many.
inline std::size_t join_halves(SourceIndex& given) {
  std::map<std::string, std::array<SourceIndex::iterator, 2>> halves;
  for (auto at = given.begin(); at != given.end(); ++at)
    if (const auto half = weight_half(at->first))
      halves.try_emplace(half->layer, std::array{given.end(), given.end()}).first->second[half->direction ? 1 : 0] = at;
  std::size_t count = 0;
  for (const auto& [layer, half] : halves) {
    if (half[0] == given.end() || half[1] == given.end() || given.contains(layer + "weight")) continue;
    const TensorInfo *length = half[0]->second.tensor, *direction = half[1]->second.tensor;
    if (!length->unreadable.empty() || !direction->unreadable.empty() ||
        length_axis(direction->shape, length->shape) == -2)
      continue;
    given.erase(half[0]);
    given.erase(half[1]);
    given[layer + "weight"] = {.tensor = direction, .length = length};
    ++count;
  }
  return count;
}

/// direction * (length / the direction's own length), as PyTorch's weight_norm: both in Strata's memory order, the
/// result in the place of the direction. False where a part of the direction is zero.
inline bool apply_length(Tensor<double>& direction, const Tensor<double>& length) {
  const Shape& shape = direction.shape();
  const int axis = length_axis(shape, length.shape());
  std::int64_t groups = axis < 0 ? 1 : shape[axis],
               inner = 1;  // inner: elements from one step along the axis to the next
  if (axis >= 0) {
    const std::array<int, 4> in_memory = shape.rank() == 4 ? std::array{0, 2, 3, 1} : std::array{0, 1, 2, 3};
    for (int i = shape.rank(); i-- > 0 && in_memory[std::size_t(i)] != axis;) inner *= shape[in_memory[std::size_t(i)]];
  }
  std::vector<double> scale(std::size_t(groups), 0.0);
  const auto group = [&](std::int64_t i) { return std::size_t(axis < 0 ? 0 : i / inner % groups); };
  for (std::int64_t i = 0; i < shape.size(); ++i) scale[group(i)] += direction.data()[i] * direction.data()[i];
  for (std::size_t i = 0; i < scale.size(); ++i) {
    if (scale[i] == 0 && shape.size() > 0) return false;
    scale[i] = length.data()[i] / std::sqrt(scale[i]);
  }
  for (std::int64_t i = 0; i < shape.size(); ++i) direction.data()[i] *= scale[group(i)];
  return true;
}

}}}  // namespace strata::STRATA_ABI::detail
