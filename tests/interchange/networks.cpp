// Writes networks for other programs to read, and reads those of other programs; check.py runs it.
//
//     interchange_networks write FOLDER     weights, ONNX files, and inputs with the outputs that this program gives
//     interchange_networks read FOLDER      loads from_pytorch*.pth and writes the outputs that it gives
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "networks.hpp"

namespace {

namespace st = strata;
namespace fs = std::filesystem;

struct Extents {
  std::int64_t n, h, w;
};

template <int C>
st::Image<C> random_image(const Extents& e, std::uint32_t key) {
  st::Image<C> image(e.n, e.h, e.w);
  st::Rng rng(7, key);
  for (float& x : image.span()) x = rng.uniform();
  return image;
}

/// Weights and statistics that leave no part of a formula at 0 or 1.
template <class Net>
void randomise(Net& net, std::uint64_t seed) {
  st::initialize(net, seed);
  st::Rng rng(seed, 1);
  st::for_each_tensor(net, [&](const std::string& name, auto& leaf) {
    if (leaf.shape().rank() != 1) return;
    const bool positive = name.ends_with("running_var");
    const float centre = name.ends_with("weight") ? 0.8f : 0.0f;
    for (float& x : leaf.template value<float>().span())
      x = positive ? 0.5f + rng.uniform() : centre + 0.3f * rng.normal();
  });
}

template <class Net>
void write(const fs::path& folder, const std::string& name, Net& net, const std::vector<Extents>& sizes) {
  const auto file = [&](const std::string& ending) { return folder / (name + ending); };
  st::save_weights(file(".safetensors"), net);
  st::save_weights(file(".spliced.safetensors"), net, {}, {.names = st::Names::spliced});
  st::OnnxOptions options{
      .metadata = {{"made by", "a test"}}, .sample_n = sizes[0].n, .sample_h = sizes[0].h, .sample_w = sizes[0].w};
  st::export_onnx(file(".onnx"), net, options);
  options.fold_batch_norm = true;
  options.names = st::Names::spliced;
  st::export_onnx(file(".folded.onnx"), net, options);

  std::vector<st::AnyTensor> images;
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    const auto x = random_image<Net::io::in>(sizes[i], i);
    st::Infer pass;
    images.emplace_back(x.tensor());
    images.emplace_back(st::as_var(net(pass, x)).value().tensor());
  }
  std::vector<st::NamedTensor> named;
  for (std::size_t i = 0; i < images.size(); ++i)
    named.push_back({st::concat(i % 2 == 0 ? "input" : "output", i / 2), &images[i]});
  st::write_safetensors(file(".images.safetensors"), named);
}

int write_all(const fs::path& folder) {
  interchange::Denoiser denoiser;
  randomise(denoiser, 1);
  write(folder, "denoiser", denoiser, {{1, 16, 16}, {2, 33, 7}, {1, 1, 50}});
  interchange::Upscaler upscaler;
  randomise(upscaler, 2);
  write(folder, "upscaler", upscaler, {{1, 16, 12}, {2, 2, 30}, {3, 38, 10}});
  interchange::Classifier classifier;
  randomise(classifier, 3);
  write(folder, "classifier", classifier, {{1, 8, 8}, {4, 9, 31}, {2, 40, 17}});
  interchange::FixedClassifier fixed;
  randomise(fixed, 4);
  write(folder, "fixed_classifier", fixed, {{1, 8, 12}, {2, 8, 12}, {5, 8, 12}});
  interchange::Gated gated;
  randomise(gated, 8);
  write(folder, "gated", gated, {{1, 16, 12}, {2, 3, 30}, {3, 37, 10}});
  interchange::ColourDenoiser ffdnet;
  randomise(ffdnet, 5);
  write(folder, "ffdnet", ffdnet, {{1, 16, 12}, {2, 2, 30}, {3, 38, 10}});
  interchange::Resolution resolution;
  randomise(resolution, 6);
  write(folder, "super_resolution", resolution, {{1, 16, 12}, {2, 1, 31}, {3, 37, 11}});
  interchange::Norms norms;
  randomise(norms, 7);
  write(folder, "norms", norms, {{1, 16, 12}, {2, 1, 31}, {3, 37, 11}});
  interchange::Masked masked;
  randomise(masked, 9);
  for (int i = 0; i < 30; ++i) {  // the power method: else its weights would be over anything
    st::Train pass;
    (void)masked.head(pass, st::Image<3>::full(1, 1, 1, 1.0f));
    (void)masked.tail.layer<1>()(pass, st::Image<8>::full(1, 1, 1, 1.0f));
  }
  write(folder, "masked", masked, {{1, 16, 12}, {2, 3, 2}, {3, 37, 11}});
  // The deploy forms.
  auto deployed_denoiser = st::fold(denoiser);
  write(folder, "deployed_denoiser", deployed_denoiser, {{1, 16, 16}, {2, 33, 7}, {1, 1, 50}});
  auto deployed_classifier = st::fold(classifier);
  write(folder, "deployed_classifier", deployed_classifier, {{1, 8, 8}, {4, 9, 31}, {2, 40, 17}});
  auto deployed_ffdnet = st::fold(ffdnet);
  write(folder, "deployed_ffdnet", deployed_ffdnet, {{1, 16, 12}, {2, 2, 30}, {3, 38, 10}});
  auto deployed_resolution = st::fold(resolution);
  write(folder, "deployed_super_resolution", deployed_resolution, {{1, 16, 12}, {2, 1, 31}, {3, 37, 11}});
  auto deployed_norms = st::fold(norms);
  write(folder, "deployed_norms", deployed_norms, {{1, 16, 12}, {2, 1, 31}, {3, 37, 11}});
  return 0;
}

int read_all(const fs::path& folder) {
  const st::WeightsFile images(folder / "images.safetensors");
  const st::Image<1> x(images.read<float>(*images.find("input")));
  std::vector<st::AnyTensor> outputs;
  std::vector<st::NamedTensor> named;
  const auto run = [&](const std::string& name, const st::LoadWeightsOptions& options) {
    interchange::Denoiser net;
    st::load_weights(folder / name, net, options);
    st::Infer pass;
    outputs.emplace_back(net(pass, x).value().tensor());
    named.push_back({name, nullptr});
  };
  run("from_pytorch_nested.pth", {});
  run("from_pytorch_spliced.pth", {.names = st::Names::spliced, .rename = {{"model", "body"}}});
  run("from_pytorch_legacy.pth", {.names = st::Names::spliced, .rename = {{"model", "body"}}});
  run("from_pytorch_order.safetensors", {.match = st::Match::by_order});
  for (std::size_t i = 0; i < named.size(); ++i) named[i].tensor = &outputs[i];
  st::write_safetensors(folder / "outputs.safetensors", named);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::string_view(argv[1]) == "write") return write_all(argv[2]);
    if (argc == 3 && std::string_view(argv[1]) == "read") return read_all(argv[2]);
    std::fputs("usage: interchange_networks write|read FOLDER\n", stderr);
  } catch (const st::Error& error) {
    std::fprintf(stderr, "interchange_networks: %s\n", error.what());
  }
  return 1;
}
