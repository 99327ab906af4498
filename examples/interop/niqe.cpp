// Rates pictures without a reference, by NIQE, with a model that is fitted from good photographs. Less is better.
//
//     interop_niqe --pristine photos --model niqe.safetensors              # fits the model and keeps it
//     interop_niqe --model niqe.safetensors --border 4 restored others     # folders of pictures
//     interop_niqe                                                         # drawn pictures, sharp, blurred and noisy
//
// CMake: find_package(strata COMPONENTS eigen), strata::eigen.
#include <strata/data/dead_leaves.hpp>
#include <strata/data/image_folder.hpp>
#include <strata/data/resize.hpp>
#include <strata/metrics/average_meter.hpp>
#include <strata/metrics/niqe.hpp>

#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

namespace st = strata;
namespace fs = std::filesystem;

namespace {

// As BasicSR: the luma of RGB. Grey files are read as three equal channels.
constexpr st::ImageFolderOptions reading{.in_memory = false, .drop_alpha = true};

void rate(const fs::path& folder, const st::NiqeModel& model, const st::NiqeOptions& options) {
  const st::ImageFolder<3> pictures(folder, reading);
  st::AverageMeter mean;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    const double quality = st::niqe(pictures.image(i), model, options);
    std::printf("%s %.4f\n", pictures.name(i).c_str(), quality);
    mean.add(quality);
  }
  std::printf("%s: mean of %zu pictures %.4f\n", folder.c_str(), pictures.size(), mean.mean());
}

void try_out() {
  const st::NiqeModel model = st::fit_niqe(st::DeadLeaves<1>({.size = 40, .h = 192, .w = 192, .seed = 1, .blur = 0}));
  const auto sharp = st::DeadLeaves<1>({.size = 1, .h = 288, .w = 288, .seed = 2, .blur = 0}).image(0);
  const auto blurred = st::resize_bicubic(st::resize_bicubic(sharp, 96, 96), 288, 288);
  st::Rng rng(3);
  const auto noisy = st::add_gaussian_noise(sharp, 25.0f / 255, rng);
  std::printf("NIQE with a model of drawn pictures: sharp %.2f, blurred %.2f, noisy %.2f\n", st::niqe(sharp, model),
              st::niqe(blurred, model), st::niqe(noisy, model));
}

}  // namespace

int main(int argc, char** argv) {
  std::string pristine, file;
  std::vector<std::string> folders;
  std::int64_t border = 0;
  CLI::App app("Rates pictures by NIQE.");
  const auto model_option = app.add_option("--model", file, "safetensors file: written with --pristine, else read");
  app.add_option("--pristine", pristine, "folder of photographs to fit the model from")->needs(model_option);
  app.add_option("--border", border, "pixels left out on each side")->check(CLI::Range(0, 10000));
  app.add_option("folders", folders, "of pictures")->needs(model_option);
  CLI11_PARSE(app, argc, argv);
  try {
    if (file.empty()) {
      try_out();
      return 0;
    }
    const st::NiqeOptions options{.border = border, .channels = st::ColorSpace::bt601_y};
    if (!pristine.empty()) {
      const st::NiqeFitOptions fitting{.pictures = {.channels = options.channels}};
      st::save_niqe(file, st::fit_niqe(st::ImageFolder<3>(pristine, reading), fitting));
    }
    const st::NiqeModel model = st::load_niqe(file);
    for (const std::string& folder : folders) rate(folder, model, options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
