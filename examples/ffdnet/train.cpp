// Trains a denoiser for all noise levels from 0 to 55.
//
//     ffdnet_train --channels 1 --steps 20000 --checkpoint-dir grey          # dead leaves, no data needed
//     ffdnet_train --channels 3 --train-dir photos --valid-dir others --checkpoint-dir colour
//     ffdnet_train --checkpoint-dir grey --resume                            # goes on, bit for bit
//     mpirun -n 4 ffdnet_train ... --shards 8
//     ffdnet_train ... --device cuda                                         # where the program was built with
//     strata::cuda
#include <CLI/CLI.hpp>

#include <cstdio>
#include <string>

#include "../common/command_line.hpp"
#include "../common/device.hpp"
#include "criterion.hpp"
#include "networks.hpp"

namespace st = strata;

namespace {

template <int Channels>
int train(const training::Options& options, const training::Recipe& recipe, training::RunFolder& folder,
          st::Device device, float sigma_max, float valid_sigma) {
  ffdnet::FFDNet<Channels> net;
  ffdnet::start(net, options.seed);
  st::to(net, device);
  std::printf("FFDNet of %d channel(s): %lld parameters, receptive field %lld; %s, %d threads, %s\n", Channels,
              static_cast<long long>(st::parameter_count<decltype(net)>),
              static_cast<long long>(st::receptive_field<decltype(net)>), device.str().c_str(), st::num_threads(),
              STRATA_ISA);
  const ffdnet::NoiseMapPatches<Channels> patches(
      sources::at_least(sources::clean_images<Channels>(options.train_dir, std::size_t(options.images), /*seed=*/1),
                        options.patch_size, "a patch (--patch-size)"),
      1000 * options.batch_size, options.patch_size, sigma_max);
  const st::NoisyImages<Channels> valid(
      sources::measurable(sources::clean_images<Channels>(options.valid_dir, 8, /*seed=*/2)), {.sigma = valid_sigma});
  return training::run(
      options, recipe, folder, net, patches,
      [](const auto& prediction, const auto& target) { return mean(abs(prediction - target)); }, valid.size(),
      [&](const auto& trained) {
        return ffdnet::evaluate<Channels>(
            [&](const auto& noisy) { return ffdnet::denoise(trained, noisy, valid_sigma); }, valid, {}, {},
            folder.world());
      });
}

}  // namespace

int main(int argc, char** argv) {
  training::Options options;
  int channels = 1;
  float sigma_max = 55, valid_sigma = 25;
  CLI::App app("Trains a denoiser for all noise levels.");
  training::add_options(app, options);
  app.add_option("--channels", channels, "1 for grey, 3 for colour")->check(CLI::IsMember({1, 3}));
  app.add_option("--sigma-max", sigma_max, "largest noise level, on the scale of 0 to 255")
      ->check(CLI::Range(0.0, 255.0));
  app.add_option("--valid-sigma", valid_sigma, "noise level of the validation")->check(CLI::Range(0.0, 255.0));
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  return ranks::with("ffdnet_train", options.ranks, options.threads, [&](const st::World& world) {
    training::Recipe recipe = training::recipe_of(options);
    recipe.add("channels", channels, training::Change::refused);
    recipe.add("sigma-max", sigma_max);
    recipe.add("valid-sigma", valid_sigma, training::Change::measures);
    return device::with("ffdnet_train", ranks::device_of(world, options.device), [&](st::Device device) {
      training::RunFolder folder = training::open(options, recipe, app, world);
      if (options.patch_size % 2 != 0)
        throw st::ValueError("--patch-size must be even: the network works at half the size");
      return channels == 1 ? train<1>(options, recipe, folder, device, sigma_max, valid_sigma)
                           : train<3>(options, recipe, folder, device, sigma_max, valid_sigma);
    });
  });
}
