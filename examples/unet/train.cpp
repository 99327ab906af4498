// Trains a U-Net to find things in images: for each pixel whether it is part of one.
//
//     unet_train --images photos --masks masks --valid-images more --valid-masks their_masks --epochs 20
//     unet_train --epochs 3                                              # draws images and masks; no data needed
//     mpirun -n 4 unet_train ... --shards 8
//
// Folders hold the same names: photos/cat.jpg, masks/cat.png.
//
// A mask is a grey picture of its image's size, white where the thing is. Leaves unet.safetensors, and unet.png, a
// sheet with image, mask and what the network says.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../common/command_line.hpp"
#include "../common/console.hpp"
#include "../common/device.hpp"
#include "../common/ranks.hpp"
#include "datasets.hpp"
#include "strata/networks/unet.hpp"
#include "strata/strata.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

using Net = st::networks::UNet<3, 1, 16>;
using unet::Masked;
struct Options {
  std::string images, masks, valid_images, valid_masks, device = "cpu";
  fs::path output = ".";
  int epochs = 10, batch_size = 8, num_workers = 1, threads = 0, count = 400;
  std::int64_t patch_size = 96;
  double lr = 1e-3;
  std::uint64_t seed = 0;
  ranks::Options ranks;
};

template <class Data>
st::Image<1> logits_of(const Net& net, const Data& data, std::size_t index, Masked& sample) {
  st::Rng rng(0, 0);
  sample = data.get(index, rng);
  st::Infer pass;
  return net(pass, sample.input.to(st::device_of(net))).value().to(st::Device::cpu());
}

/// Pixels in both over pixels in either, of the wanted and the found: intersection over union, over all images, which
/// the ranks share.
template <class Data>
double intersection_over_union(const Net& net, const Data& data, const st::World& world) {
  struct Pixels {
    std::int64_t both = 0, either = 0;
  };
  Pixels all;
  for (const Pixels& of_image : world.each(data.size(), [&](std::size_t index) {
         Masked sample;
         const st::Image<1> logits = logits_of(net, data, index, sample);
         Pixels pixels;
         for (std::int64_t i = 0; i < logits.size(); ++i) {
           const bool found = logits.data()[i] > 0, wanted = sample.target.data()[i] > 0.5f;
           pixels.both += found && wanted;
           pixels.either += found || wanted;
         }
         return pixels;
       })) {
    all.both += of_image.both;
    all.either += of_image.either;
  }
  return all.either == 0 ? 1.0 : double(all.both) / double(all.either);
}

/// Image, mask and what the network says, of the first four.
template <class Data>
void save_sheet(const Net& net, const Data& data, const fs::path& sheet) {
  std::vector<st::Image<3>> rows;
  for (std::size_t i = 0; i < std::min<std::size_t>(data.size(), 4); ++i) {
    Masked sample;
    const st::Image<1> logits = logits_of(net, data, i, sample);
    const std::int64_t h = logits.h(), w = logits.w();
    st::Image<3> row(1, h, 3 * w);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x)
        for (int c = 0; c < 3; ++c) {
          row(0, c, y, x) = std::clamp(sample.input(0, c, y, x), 0.0f, 1.0f);
          row(0, c, y, w + x) = sample.target(0, 0, y, x);
          row(0, c, y, 2 * w + x) = 1 / (1 + std::exp(-logits(0, 0, y, x)));
        }
    rows.push_back(row);
  }
  std::int64_t height = 0, width = 0;
  for (const auto& row : rows) height += row.h(), width = std::max(width, row.w());
  st::Image<3> all(1, height, width);
  std::fill_n(all.data(), all.size(), 0.0f);
  std::int64_t top = 0;
  for (const auto& row : rows) {
    for (std::int64_t y = 0; y < row.h(); ++y) std::copy_n(&row(0, 0, y, 0), 3 * row.w(), &all(0, 0, top + y, 0));
    top += row.h();
  }
  st::save_image(sheet, all);
}

template <class Data>
int train(const Options& options, st::Device device, const st::World& world, const Data& data, const Data& valid) {
  Net net;
  st::initialize(net, options.seed);
  st::to(net, device);
  std::printf("%lld parameters; %zu images to train with, %zu to validate with\n",
              static_cast<long long>(st::parameter_count<Net>), data.size(), valid.size());
  const st::Map patches(data, [size = options.patch_size](Masked sample, st::Rng& rng) {
    const std::int64_t h = std::min(size, sample.input.h()), w = std::min(size, sample.input.w());
    const auto y = std::int64_t(rng.below(std::uint32_t(sample.input.h() - h + 1)));
    const auto x = std::int64_t(rng.below(std::uint32_t(sample.input.w() - w + 1)));
    const int turn = h == w ? int(rng.below(8)) : 0;
    return Masked{st::dihedral(st::crop(sample.input, y, x, h, w), turn),
                  st::dihedral(st::crop(sample.target, y, x, h, w), turn)};
  });
  const st::DataLoader loader(patches, ranks::loader_options(options, world));
  st::DataParallel parallel(net, world);
  st::AdamW adam(net, {.lr = options.lr});
  st::CosineAnnealingLR scheduler(adam,
                                  {.t_max = std::max<std::int64_t>(1, std::int64_t(loader.size()) * options.epochs)});
  const st::BCEWithLogitsLoss bce;
  const console::Interrupt interrupt;
  ranks::Stop stop(world);
  std::int64_t step = 0;
  for (int epoch = 0; epoch < options.epochs && !stop.interrupted(); ++epoch) {
    console::Progress progress(st::concat("epoch ", epoch + 1), std::int64_t(loader.size()));
    st::AverageMeter loss_mean;
    std::int64_t batches = 0;
    for (const auto& batch : loader.epoch(epoch)) {
      adam.zero_grad();
      loss_mean.add(parallel.step(batch, {.seed = options.seed, .step = step++}, net, bce));
      adam.step();
      scheduler.step();
      if (options.ranks.check_ranks > 0 && step % options.ranks.check_ranks == 0)
        st::check_equal(world, st::concat("after step ", step), net, adam);
      progress.update(++batches, st::concat("loss ", loss_mean.mean()));
      stop.ask(interrupt.requested(), false);
      if (stop.interrupted()) break;
    }
    progress.finish();
    std::printf("epoch %d  loss %.4f  IoU %.3f\n", epoch + 1, loss_mean.mean(),
                intersection_over_union(net, valid, world));
    std::fflush(stdout);
    if (!world.is_first()) continue;
    save_sheet(net, valid, options.output / "unet.png");
    st::save_weights(options.output / "unet.safetensors", net, {{"network", "U-Net, 3 channels, 1 class, width 16"}});
  }
  return stop.interrupted() ? interrupt.exit_status() : 0;
}

int run(const Options& options, st::Device device, const st::World& world) {
  if (options.patch_size % 16 != 0)
    throw st::ValueError(st::concat("--patch-size is ", options.patch_size, ": a U-Net wants a multiple of 16"));
  world.check_shards(options.ranks.shards);
  if (options.images.empty())
    return train(options, device, world, unet::DrawnThings{std::size_t(options.count), 1}, unet::DrawnThings{32, 2});
  return train(options, device, world, unet::Folders(options.images, options.masks),
               unet::Folders(options.valid_images, options.valid_masks));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a U-Net for segmentation.");
  app.option_defaults()->always_capture_default();
  const auto images = app.add_option("--images", options.images, "folder of pictures; without it they are drawn");
  const auto masks =
      app.add_option("--masks", options.masks, "folder of their masks, by the same names")->needs(images);
  const auto valid = app.add_option("--valid-images", options.valid_images, "pictures to validate with");
  const auto valid_masks = app.add_option("--valid-masks", options.valid_masks, "and their masks")->needs(valid);
  images->needs(masks)->needs(valid)->needs(valid_masks);
  app.add_option("--count", options.count, "how many are drawn")->check(CLI::Range(8, 1000000));
  app.add_option("--output", options.output, "folder for unet.safetensors and unet.png")->check(CLI::ExistingDirectory);
  app.add_option("--epochs", options.epochs)->check(CLI::Range(1, 100000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(1, 65536));
  app.add_option("--patch-size", options.patch_size, "a multiple of 16")->check(CLI::Range(16, 4096));
  app.add_option("--lr", options.lr, "learning rate at the start")->check(CLI::PositiveNumber);
  app.add_option("--num-workers,--workers,-j", options.num_workers, "threads that make batches")
      ->check(CLI::Range(0, 256));
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--seed", options.seed);
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  ranks::add_options(app, options.ranks);
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  return ranks::with("unet_train", options.ranks, options.threads, [&](const st::World& world) {
    return device::with("unet_train", ranks::device_of(world, options.device),
                        [&](st::Device device) { return run(options, device, world); });
  });
}
