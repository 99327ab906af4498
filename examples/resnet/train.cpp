// Trains ResNet-18 on images of 32 x 32 in ten classes: CIFAR-10's files, or images that it draws itself.
//
//     resnet_train --data cifar --epochs 30 --output resnet18.safetensors      # the folder with data_batch_1.bin ...
//     resnet_train --epochs 2 --images 2000                                    # draws them; no data needed
//     resnet_train --data cifar --weights resnet18.safetensors --epochs 0      # tests
//     mpirun -n 4 resnet_train ... --shards 8
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../common/command_line.hpp"
#include "../common/console.hpp"
#include "../common/device.hpp"
#include "../common/ranks.hpp"
#include "strata/networks/resnet.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace {

using Net = st::networks::ResNet18<10, st::networks::SmallImageStem>;

/// Drawn images of ten classes: five shapes, each of a warm or a cold colour, anywhere on a ground of another.
struct DrawnShapes {
  std::size_t count;
  std::uint64_t seed;

  std::size_t size() const { return count; }
  st::LabelledSample<3> get(std::size_t index, st::Rng&) const {
    st::Rng rng(seed, std::uint32_t(index));
    const st::Label label = st::Label(index % 10);
    const int shape = int(label / 2);
    const bool warm = label % 2 == 0;
    const float cy = rng.uniform(11, 21), cx = rng.uniform(11, 21), radius = rng.uniform(6, 10);
    const float strong = rng.uniform(0.6f, 1), weak = rng.uniform(0, 0.4f), ground = rng.uniform(0.2f, 0.8f);
    st::Image<3> image(1, 32, 32);
    for (int y = 0; y < 32; ++y)
      for (int x = 0; x < 32; ++x) {
        const float dy = std::abs(float(y) - cy), dx = std::abs(float(x) - cx), d = std::hypot(dy, dx);
        const bool inside = shape == 0   ? d < radius
                            : shape == 1 ? std::max(dy, dx) < 0.85f * radius
                            : shape == 2 ? std::abs(d - 0.8f * radius) < 0.2f * radius
                            : shape == 3 ? std::min(dy, dx) < 0.2f * radius && d < radius
                                         : d < radius && (y / 3) % 2 == 0;
        const float red = inside ? (warm ? strong : weak) : ground, blue = inside ? (warm ? weak : strong) : ground;
        const float colours[3] = {red, inside ? weak : ground, blue};
        for (int c = 0; c < 3; ++c) image(0, c, y, x) = std::clamp(colours[c] + 0.1f * rng.normal(), 0.0f, 1.0f);
      }
    return {image, label};
  }
};

struct Options {
  std::string data, weights, output = "resnet18.safetensors", device = "cpu";
  std::int64_t images = 5000;
  int epochs = 30, batch_size = 128, num_workers = 1, threads = 0;
  double lr = 0.1;
  std::uint64_t seed = 0;
  ranks::Options ranks;
};

constexpr std::array<float, 3> mean{0.4914f, 0.4822f, 0.4465f}, deviation{0.2470f, 0.2435f, 0.2616f};

/// Batches are shared among the ranks.
template <class Test>
double test(const Net& net, const Test& images, int batch_size, const st::World& world) {
  const st::Map normalized(images, [](st::LabelledSample<3> sample, st::Rng&) {
    return st::LabelledSample<3>{st::normalize(sample.input, mean, deviation), sample.target};
  });
  const st::DataLoader loader(normalized, {.batch_size = batch_size});
  const st::Device device = st::device_of(net);
  struct OfBatch {
    double accuracy = 0, images = 0;
  };
  const std::vector<OfBatch> batches = world.each(std::size_t(loader.size()), [&](std::size_t i) {
    auto epoch = loader.epoch(0, std::int64_t(i));
    const auto& [x, labels] = *epoch.begin();
    st::Infer pass;
    return OfBatch{st::accuracy(net(pass, x.to(device)).value().to(st::Device::cpu()), labels), double(x.n())};
  });
  st::AverageMeter accuracy;
  for (const OfBatch& batch : batches) accuracy.add(batch.accuracy, batch.images);
  return accuracy.mean();
}

template <class Data>
int train(const Options& options, st::Device device, const st::World& world, const Data& images,
          const Data& test_images) {
  Net net;
  st::initialize(net, options.seed);
  if (!options.weights.empty() && world.is_first())
    for (const std::string& note : st::load_weights(options.weights, net).notes)
      std::fprintf(stderr, "%s\n", note.c_str());
  st::to(net, device);
  std::printf("%lld parameters, %lld multiply-adds an image; %zu images to train with, %zu to test with\n",
              static_cast<long long>(st::parameter_count<Net>), static_cast<long long>(st::multiply_adds(net, 32, 32)),
              images.size(), test_images.size());

  const st::Map augmented(images, [](st::LabelledSample<3> sample, st::Rng& rng) {
    const auto moved = st::random_crop(sample.input, 32, rng, {.padding = 4});
    return st::LabelledSample<3>{st::normalize(st::random_horizontal_flip(moved, rng), mean, deviation), sample.target};
  });
  const st::DataLoader loader(augmented, ranks::loader_options(options, world));
  st::DataParallel parallel(net, world);
  const auto steps = std::int64_t(loader.size()) * options.epochs;
  st::SGD sgd(net, {.lr = options.lr, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true});
  st::OneCycleLR scheduler(sgd, {.max_lr = options.lr, .total_steps = std::max<std::int64_t>(steps, 1)});
  const st::CrossEntropyLoss cross_entropy;
  const console::Interrupt interrupt;
  ranks::Stop stop(world);
  std::int64_t step = 0;
  for (int epoch = 0; epoch < options.epochs && !stop.interrupted(); ++epoch) {
    const console::Stopwatch watch;
    console::Progress progress(st::concat("epoch ", epoch + 1), std::int64_t(loader.size()));
    st::AverageMeter loss_mean;
    std::int64_t batches = 0;
    for (const auto& batch : loader.epoch(epoch)) {
      sgd.zero_grad();
      loss_mean.add(parallel.step(batch, {.seed = options.seed, .step = step++}, net, cross_entropy));
      sgd.step();
      scheduler.step();
      if (options.ranks.check_ranks > 0 && step % options.ranks.check_ranks == 0)
        st::check_equal(world, st::concat("after step ", step), net, sgd);
      progress.update(++batches, st::concat("loss ", loss_mean.mean()));
      stop.ask(interrupt.requested(), false);
      if (stop.interrupted()) break;
    }
    progress.finish();
    std::printf("epoch %d  loss %.4f  accuracy %.2f %%  %s\n", epoch + 1, loss_mean.mean(),
                100 * test(net, test_images, options.batch_size, world), console::clock_text(watch.seconds()).c_str());
    std::fflush(stdout);
    if (world.is_first())
      st::save_weights(options.output, net,
                       {{"network", "ResNet-18 for images of 32 x 32"}, {"epoch", st::concat(epoch + 1)}});
  }
  if (options.epochs == 0) std::printf("accuracy %.2f %%\n", 100 * test(net, test_images, options.batch_size, world));
  return stop.interrupted() ? interrupt.exit_status() : 0;
}

int run(const Options& options, st::Device device, const st::World& world) {
  world.check_shards(options.ranks.shards);
  if (options.data.empty())
    return train(options, device, world, DrawnShapes{std::size_t(options.images), 1},
                 DrawnShapes{std::size_t(options.images / 5 + 1), 2});
  return train(options, device, world, st::CIFAR10({.root = options.data}),
               st::CIFAR10({.root = options.data, .train = false}));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains ResNet-18 on CIFAR-10, or on images that it draws.");
  app.option_defaults()->always_capture_default();
  app.add_option("--data", options.data, "folder of CIFAR-10's binary files; without it images are drawn");
  app.add_option("--images", options.images, "how many are drawn")->check(CLI::Range(10, 10000000));
  app.add_option("--weights", options.weights, "weights to begin with");
  app.add_option("--output", options.output, "where the weights go, after each epoch");
  app.add_option("--epochs", options.epochs)->check(CLI::Range(0, 100000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(2, 65536));
  app.add_option("--lr", options.lr, "largest learning rate")->check(CLI::PositiveNumber);
  app.add_option("--num-workers,--workers,-j", options.num_workers, "threads that make batches")
      ->check(CLI::Range(0, 256));
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--seed", options.seed);
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  ranks::add_options(app, options.ranks);
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  return ranks::with("resnet_train", options.ranks, options.threads, [&](const st::World& world) {
    return device::with("resnet_train", ranks::device_of(world, options.device),
                        [&](st::Device device) { return run(options, device, world); });
  });
}
