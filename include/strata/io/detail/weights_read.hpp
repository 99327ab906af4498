// Reads a network's tensors from a file: by the plan that the options make, or, where one prefix is all that is in the
// way, without it; and says what an option would mend.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/io/names.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights_file.hpp"
#include "strata/io/weights_options.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The network's tensors under either kind of names.
using NamedTensors = std::function<std::vector<NamedTensor>(Names)>;

/// Reads a tensor for each of the network's, and notes what it did by itself. Throws FileError when the file does not
/// fit.
std::vector<AnyTensor> read_weights(const WeightsFile& file, const LoadWeightsOptions& options,
                                    const NamedTensors& named, std::vector<std::string>& notes);

/// Copies numbers between tensors of the same type and shape, each on its device; other handles on `to` see them.
void copy_into(AnyTensor& to, const AnyTensor& from);

/// Copies what was read into the network's tensors. Does not fail, unless an accelerator does.
void copy_all(const std::vector<AnyTensor*>& targets, const std::vector<AnyTensor>& values);

/// The tensors under the names that the rules give them. Throws ValueError for a rule that fits none; `path` is for its
/// text.
void rename_tensors(const std::filesystem::path& path, std::vector<NamedTensor>& tensors,
                    const std::vector<Rename>& rules);

}  // namespace strata::inline STRATA_ABI::detail

#ifndef STRATA_COMPILED
#include "strata/io/detail/weights_read_impl.hpp"
#endif
