// A network's weights in files: safetensors both ways, with PyTorch's names and layouts so that
// load_state_dict(strict=True) takes them, and what torch.save wrote (io/pytorch_file.hpp) read too.
//
//     st::save_weights("net.safetensors", net);
//     st::load_weights("net.safetensors", net);
//     st::load_weights("from_pytorch.pth", net, {.names = st::Names::spliced, .rename = {{"model", "body"}}});
//     st::load_weights("from_pytorch.pth", net, {.match = st::Match::by_order});
//
// A file that does not fit is a FileError that lists what is missing, unexpected or of another shape and names the
// option that would help, and the network is as it was. Files of float16, bfloat16 or float64 are converted. What was
// done without being asked for, as dropping a prefix, is in the report:
//
//     for (const std::string& note : st::load_weights(path, net).notes) std::cerr << note << '\n';
#pragma once

#include <filesystem>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/visit.hpp"
#include "strata/io/detail/weights_read.hpp"
#include "strata/io/names.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights_file.hpp"
#include "strata/io/weights_options.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

template <class Net>
std::vector<AnyTensor*> values_of(Net& net) {
  std::vector<AnyTensor*> values;
  for_each_tensor(net, [&](const std::string&, auto& leaf) { values.push_back(&leaf.any_value()); });
  return values;
}

}  // namespace detail

/// Writes all parameters and buffers as a safetensors file. Throws FileError when it cannot be written, ValueError for
/// a rename that fits no name or makes two the same.
template <class Net>
void save_weights(const std::filesystem::path& path, const Net& net, const Metadata& metadata = {},
                  const SaveWeightsOptions& options = {}) {
  std::vector<NamedTensor> tensors = detail::tensors_of(net, "", options.names);
  detail::rename_tensors(path, tensors, options.rename);
  write_safetensors(path, tensors, metadata);
}

/// Reads all parameters and buffers from a safetensors file, a checkpoint, or a file of torch.save. Throws FileError,
/// listing the differences and, where one would help, the option, when the file does not fit the network, which is then
/// as it was, as it is when memory runs out. Only num_batches_tracked may be missing, and a bias where the file has
/// none at all: see LoadWeightsOptions. The report says what else a user should know.
template <class Net>
LoadReport load_weights(const std::filesystem::path& path, Net& net, const LoadWeightsOptions& options = {}) try {
  static_assert(!std::is_const_v<Net>, "strata: load_weights changes the network, which must not be const");
  const WeightsFile file(path, options.key);
  LoadReport report{.metadata = file.metadata(), .key = file.key(), .notes = file.notes()};
  const auto named = [&](Names names) { return detail::tensors_of(std::as_const(net), "", names); };
  const std::vector<AnyTensor> values = detail::read_weights(file, options, named, report.notes);
  detail::copy_all(detail::values_of(net), values);
  return report;
} catch (const std::bad_alloc&) {
  detail::no_memory_for(path);
}

}  // namespace strata::inline STRATA_ABI
