// Trains a network that doubles an image's size.
//
//     super_resolution_train --steps 10000 --patch-size 96 --checkpoint-dir out       # dead leaves, no data needed
//     super_resolution_train --checkpoint-dir out --resume                            # goes on, bit for bit
//     mpirun -n 4 super_resolution_train ... --shards 8
//     super_resolution_train ... --device cuda                  # where the program was built with strata::cuda
#include <CLI/CLI.hpp>

#include <cstdio>

#include "../common/command_line.hpp"
#include "../common/device.hpp"
#include "criterion.hpp"
#include "networks.hpp"

namespace st = strata;

namespace {

int train(training::Options& options, const CLI::App& app, st::Device device, const st::World& world) {
  using Net = super_resolution::SuperResolution<>;
  constexpr int factor = super_resolution::factor;
  training::Recipe recipe = training::recipe_of(options);
  training::RunFolder folder = training::open(options, recipe, app, world);
  if (options.patch_size % factor != 0)
    throw st::ValueError(
        st::concat("--patch-size counts pixels of the large image and must be a multiple of ", factor));
  Net net;
  super_resolution::start(net, options.seed);
  st::to(net, device);
  std::printf("x%d: %lld parameters, receptive field %lld; %s, %d threads, %s\n", factor,
              static_cast<long long>(st::parameter_count<Net>), static_cast<long long>(st::receptive_field<Net>),
              device.str().c_str(), st::num_threads(), STRATA_ISA);
  const super_resolution::Patches patches(
      {sources::at_least(sources::clean_images<1>(options.train_dir, std::size_t(options.images), /*seed=*/1),
                         options.patch_size, "a patch (--patch-size)"),
       factor},
      1000 * options.batch_size, options.patch_size, factor);
  const super_resolution::TestPairs valid(options.valid_dir, factor);
  return training::run(
      options, recipe, folder, net, patches,
      [](const auto& prediction, const auto& target) { return mean(abs(prediction - target)); }, valid.size(),
      [&](const auto& trained) {
        return super_resolution::evaluate([&](const auto& small) { return super_resolution::upscale(trained, small); },
                                          valid, factor, {}, world);
      });
}

}  // namespace

int main(int argc, char** argv) {
  training::Options options;
  options.patch_size = 96;
  CLI::App app("Trains a network that doubles an image's size.");
  training::add_options(app, options);
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  return ranks::with("super_resolution_train", options.ranks, options.threads, [&](const st::World& world) {
    return device::with("super_resolution_train", ranks::device_of(world, options.device),
                        [&](st::Device device) { return train(options, app, device, world); });
  });
}
