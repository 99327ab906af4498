// Finds out from a weights file which DnCNN it is of, and loads it.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>

#include "networks.hpp"
#include "strata/strata.hpp"

namespace dncnn {

/// What the names and shapes in a file say.
struct Architecture {
  int channels = 0, width = 0, depth = 0;
  bool batch_norm = false;

  std::string str() const {
    return st::concat("DnCNN of depth ", depth, ", width ", width, ", ", channels,
                      channels == 1 ? " channel, " : " channels, ",
                      batch_norm ? "with batch norm" : "without batch norm");
  }
};

inline Architecture architecture_of(const std::filesystem::path& path) {
  const st::WeightsFile file(path);
  Architecture found;
  for (const st::TensorInfo& tensor : file.tensors()) {
    if (tensor.name.starts_with("state.")) continue;  // a checkpoint's optimiser
    if (tensor.name.ends_with("running_mean")) found.batch_norm = true;
    if (tensor.shape.rank() != 4) continue;
    ++found.depth;
    if (found.channels == 0 || tensor.shape.c() < found.channels) found.channels = int(tensor.shape.c());
    if (tensor.shape.n() > found.width) found.width = int(tensor.shape.n());
  }
  if (found.depth == 0)
    throw st::FileError(st::concat(path.string(), ": holds no convolution weights, so it is not of a DnCNN"));
  return found;
}

/// Loads the file into a network of its kind, on a device, and calls use(const net&). Throws FileError for a kind that
/// is not compiled in.
template <class Use>
auto with_network(const std::filesystem::path& path, st::Device device, Use&& use) {
  const Architecture found = architecture_of(path);
  const auto load = [&]<class Net>(Net&& net) {
    for (const std::string& note : st::load_weights(path, net, {.match = st::Match::by_order}).notes)
      std::fprintf(stderr, "%s\n", note.c_str());
    if (const std::string name = st::first_not_finite(net); !name.empty())
      throw st::FileError(st::concat(path.string(), ": ", name,
                                     " holds numbers that are not finite (NaN or infinity); wanted other weights"));
    st::to(net, device);
    return use(std::as_const(net));
  };
  const auto depth = [&]<int Channels, int Width, int Depth>() {
    return found.batch_norm ? load(DnCNN<Channels, Width, Depth>()) : load(FoldedDnCNN<Channels, Width, Depth>());
  };
  if (found.channels == 1 && found.width == 64 && found.depth == 17) return depth.template operator()<1, 64, 17>();
  if (found.channels == 1 && found.width == 64 && found.depth == 20) return depth.template operator()<1, 64, 20>();
  if (found.channels == 3 && found.width == 64 && found.depth == 20) return depth.template operator()<3, 64, 20>();
  if (found.channels == 1 && found.width == 64 && found.depth == 8) return depth.template operator()<1, 64, 8>();
  if (found.channels == 1 && found.width == 32 && found.depth == 17) return depth.template operator()<1, 32, 17>();
  if (found.channels == 1 && found.width == 32 && found.depth == 8) return depth.template operator()<1, 32, 8>();
  throw st::FileError(st::concat(path.string(), ": is of a ", found.str(),
                                 ", which this program is not compiled for; add a line to examples/dncnn/weights.hpp"));
}

}  // namespace dncnn
