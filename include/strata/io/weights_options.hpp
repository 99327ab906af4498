// How a file of weights and a network are brought together: io/weights.hpp.
#pragma once

#include <string>
#include <vector>

#include "strata/io/names.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class Match {
  by_name,  ///< a tensor of the file goes to the network's of the same name
  /// The k-th layer of the file goes to the k-th layer of the network, whatever their names. A layer is all tensors
  /// whose names share what is before the last dot. The file's layers are taken in natural order of their names
  /// ("model.10" after "model.2"), the network's in the order of its lists; in a layer, "weight" goes to "weight" and
  /// so on. For networks whose PyTorch twin is one nn.Sequential.
  by_order,
};

/// How the names of a file become those of the network: first the prefix is dropped, then names are left out, then
/// renamed.
///
/// What PyTorch's wrappers add to names need not be given: the "module." of DataParallel where all names have it, the
/// "_orig_mod." of torch.compile and its like, a checkpoint's "net.", and, when nothing else keeps file and network
/// apart, any beginning that all names share, as Lightning's "model.". Nor need weight_norm: weight_g and weight_v (or
/// parametrizations.weight.original0 and 1) become the weight. What was done so is in LoadReport::notes.
struct LoadWeightsOptions {
  Match match = Match::by_name;
  /// Takes only the file's tensors that begin with this, and drops it from their names: "net." or "module.".
  std::string prefix = {};
  std::string key = {};             ///< which dict of a .pth file: see io/pytorch_file.hpp
  Names names = Names::nested;      ///< what the network's tensors are called
  std::vector<Rename> rename = {};  ///< the first that fits a name counts; one that fits none is an error
  /// Names, or their beginnings before a dot, that are left out; one that fits none is an error.
  std::vector<std::string> ignore = {};
  /// Names of the network, or their beginnings before a dot, that the file has not and that become zero, as the bias of
  /// a convolution without; one that fits nothing that is missing is an error. A file in which no convolution or linear
  /// layer has a bias needs no such rule: all of these become zero.
  std::vector<std::string> zero = {};
};

struct SaveWeightsOptions {
  Names names = Names::nested;
  std::vector<Rename> rename = {};  ///< from the network's names to the file's, as in LoadWeightsOptions
};

/// What load_weights found.
struct LoadReport {
  Metadata metadata;  ///< the file's; empty for a file of torch.save
  std::string key;    ///< of the dict of a file of torch.save that was read; empty for the file's own
  /// What a reader of the program's output should know, a sentence each that begins with the path: names read without a
  /// prefix, biases that are zero because the file has none, other dicts that might have been meant. Print them.
  std::vector<std::string> notes;

  operator const Metadata&() const { return metadata; }
};

}}  // namespace strata::STRATA_ABI
