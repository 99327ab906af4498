// What is asked of a ready network (strata/networks/): ready.py compares the answers with those of its PyTorch
// original.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/deploy/fold.hpp"
#include "strata/deploy/tile.hpp"
#include "strata/io/onnx_export.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/loss.hpp"

namespace ready {

namespace st = strata;
namespace fs = std::filesystem;

using Answers = std::vector<std::pair<std::string, st::AnyTensor>>;
template <class Net, class T>
using Image = st::Image<Net::io::out, T>;

/// An image, and the rows and columns of the tiles that it is cut into; tile 0 for a network that cannot be cut.
struct Cut {
  std::int64_t h, w, tile;
};

template <class Net>
st::Image<Net::io::out> infer(const Net& net, const st::Image<Net::io::in>& x) {
  st::Infer pass;
  return st::as_var(net(pass, x)).value();
}

[[noreturn]] inline void fail(const std::string& name, const std::string& what) {
  throw st::Error(st::concat(name, ": ", what));
}

/// The tiled run has the bits of the whole one, or is refused in a sentence that says why.
template <class Net>
void check_tiles(const std::string& name, const Net& net, const Cut& cut) {
  st::Image<Net::io::in> x(1, cut.h, cut.w);
  st::Rng rng(11, 0);
  for (float& number : x.span()) number = rng.uniform();
  if (cut.tile == 0) {
    try {
      st::run_tiled(net, x, {.max_bytes = 1 << 16, .tile = 16});
    } catch (const st::Error& error) {
      if (std::string_view(error.what()).find("depends on all of the image") == std::string_view::npos) throw;
      std::printf("%s: tiles refused: %s\n", name.c_str(), error.what());
      return;
    }
    fail(name, "was cut into tiles, and looks at the whole image");
  }
  const auto whole = infer(net, x),
             tiled = st::run_tiled(net, x, {.max_bytes = std::int64_t{4} << 30, .tile = cut.tile});
  if (whole.shape() != tiled.shape() ||
      std::memcmp(whole.data(), tiled.data(), std::size_t(whole.size()) * sizeof(float)) != 0)
    fail(name, "tiles give other bits than the whole image");
  std::printf("%s: tiles of %d of an image of %d x %d: the same bits\n", name.c_str(), int(cut.tile), int(cut.h),
              int(cut.w));
}

/// The gradients of all parameters, in T, of mean(output^2) for an image; and that output.
template <class T, class Net>
Image<Net, T> gradients(Net& net, const st::Image<Net::io::in>& x, const std::string& prefix, Answers& answers) {
  st::Image<Net::io::in, T> input(x.n(), x.h(), x.w());
  std::copy_n(x.data(), x.size(), input.data());
  st::Train pass({.seed = 1, .step = 0});
  const auto y = st::as_var(net(pass, input));
  pass.backward(st::mean(st::square(y)));
  st::for_each_parameter(net, [&](const std::string& parameter, st::Parameter& leaf) {
    answers.emplace_back(prefix + parameter, leaf.grad<T>());
  });
  return y.value();
}

/// Reads NAME.safetensors and NAME.images.safetensors of the folder; writes NAME.onnx and NAME.answers.safetensors with
/// the outputs, those of the folded network, and, of the image "train", the training pass's output and each parameter's
/// gradient for the loss mean(output^2), in float32 (grad.) and, of a copy of the network, in float64 (grad64.).
template <class Net>
void check(const fs::path& folder, const std::string& name, const Cut& cut) {
  Net net;
  if (const auto report = st::load_weights(folder / (name + ".safetensors"), net); !report.notes.empty())
    fail(name, "the weights were not taken as they are: " + report.notes[0]);
  Answers answers;
  const st::WeightsFile images(folder / (name + ".images.safetensors"));
  const auto image = [&](const std::string& which) {
    return st::Image<Net::io::in>(images.read<float>(*images.find(which)));
  };
  const auto folded = st::fold(net);
  for (int i = 0; i < 3; ++i) {
    const auto x = image(st::concat("input", i));
    answers.emplace_back(st::concat("output", i), infer(net, x).tensor());
    answers.emplace_back(st::concat("folded", i), infer(folded, x).tensor());
  }
  st::export_onnx(folder / (name + ".onnx"), net, {.sample = false});
  check_tiles(name, folded, cut);

  answers.emplace_back("trained", gradients<float>(net, image("train"), "grad.", answers).tensor());
  Net wide;
  st::load_weights(folder / (name + ".safetensors"), wide);
  st::to<double>(wide);
  gradients<double>(wide, image("train"), "grad64.", answers);
  std::vector<st::NamedTensor> named;
  for (const auto& [answer, tensor] : answers) named.push_back({answer, &tensor});
  st::write_safetensors(folder / (name + ".answers.safetensors"), named);

  const auto facts = st::facts(net, 224, 224);
  const std::string field =
      facts.receptive_field == st::whole_image ? "the whole image" : std::to_string(facts.receptive_field);
  std::printf("%s: parameters %lld, multiply-adds for 224 x 224 %lld, receptive field %s\n", name.c_str(),
              static_cast<long long>(facts.parameters), static_cast<long long>(facts.multiply_adds), field.c_str());
}

// One for each file, so that none takes long to compile. Each checks the network of that name, or returns false.
bool check_super_resolution(const fs::path& folder, std::string_view name);
bool check_rcan(const fs::path& folder, std::string_view name);
bool check_denoisers(const fs::path& folder, std::string_view name);
bool check_nafnet(const fs::path& folder, std::string_view name);
bool check_vgg(const fs::path& folder, std::string_view name);
bool check_mobilenet(const fs::path& folder, std::string_view name);
bool check_unet(const fs::path& folder, std::string_view name);
bool check_dcgan(const fs::path& folder, std::string_view name);
bool check_resnet(const fs::path& folder, std::string_view name);

}  // namespace ready
