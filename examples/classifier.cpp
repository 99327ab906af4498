// A classifier: which of four shapes is drawn in a 16x16 image? Trains in seconds and prints its accuracy on new
// images.
//
//     classifier
//     classifier --device cuda        # where the program was built with strata::cuda
#include <CLI/CLI.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>

#include "common/command_line.hpp"
#include "common/device.hpp"
#include "strata/strata.hpp"

namespace st = strata;

// A data set is any type with size() and get(index, rng). All randomness comes from rng, so that sample 7 of epoch 3 is
// the same whatever thread makes it.
struct Shapes {
  static constexpr int classes = 4;
  static constexpr std::array<const char*, classes> names{"disc", "square", "ring", "cross"};
  std::size_t count;

  std::size_t size() const { return count; }

  st::LabelledSample<1> get(std::size_t, st::Rng& rng) const {
    const st::Label label = rng.below(classes);
    const float cy = rng.uniform(6, 10), cx = rng.uniform(6, 10), radius = rng.uniform(3, 5.5f);
    auto image = st::Image<1>(1, 16, 16);
    for (int y = 0; y < 16; ++y)
      for (int x = 0; x < 16; ++x) {
        const float dy = float(y) - cy, dx = float(x) - cx, d = std::hypot(dy, dx);
        const bool inside = label == 0   ? d < radius
                            : label == 1 ? std::max(std::abs(dy), std::abs(dx)) < radius * 0.85f
                            : label == 2 ? std::abs(d - radius + 1) < 1
                                         : std::min(std::abs(dy), std::abs(dx)) < 1 && d < radius;
        image(0, 0, y, x) = (inside ? 1.0f : 0.0f) + 0.2f * rng.normal();
      }
    return {image, label};
  }
};

using Net = st::Sequential<                                                        //
    st::Conv2d<1, 16, 3, st::no_bias>, st::BatchNorm2d<16>, st::ReLU, st::MaxPool2d<2>,   // 16 x 16 -> 8 x 8
    st::Conv2d<16, 32, 3, st::no_bias>, st::BatchNorm2d<32>, st::ReLU, st::MaxPool2d<2>,  // 8 x 8 -> 4 x 4
    st::Flatten<32, 4, 4>, st::Linear<512, Shapes::classes>>;

int train_and_test(st::Device device) {
  Net net;
  st::initialize(net, /*seed=*/1);
  st::to(net, device);
  st::Adam adam(net, {.lr = 2e-3});
  const st::CrossEntropyLoss cross_entropy;
  const Shapes train{2048}, test{512};
  const st::DataLoader loader(train, {.batch_size = 32, .num_workers = 1, .seed = 1});

  for (int epoch = 0; epoch < 4; ++epoch) {
    st::AverageMeter mean_loss;
    for (const auto& [images, labels] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = cross_entropy(net(pass, images.to(device)), labels);
      adam.zero_grad();
      pass.backward(loss);
      adam.step();
      mean_loss.add(loss.item());
    }
    std::printf("epoch %d  loss %.4f\n", epoch + 1, mean_loss.mean());
  }

  const st::DataLoader test_loader(test, {.batch_size = 64, .seed = 2});
  st::AverageMeter accuracy;
  for (const auto& [images, labels] : test_loader.epoch(0)) {
    st::Infer pass;
    accuracy.add(st::accuracy(net(pass, images.to(device)).value().to(st::Device::cpu()), labels), double(images.n()));
  }
  std::printf("accuracy on new images: %.1f %%\n", 100 * accuracy.mean());
  return accuracy.mean() > 0.95 ? 0 : 1;
}

int main(int argc, char** argv) {
  CLI::App app("Trains a classifier of four shapes.");
  std::string device_name = "cpu";
  app.add_option("--device", device_name, "cpu, cuda or cuda:N");
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  try {
    return device::with("classifier", device_name, train_and_test);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classifier: %s\n", error.what());
    return 1;
  }
}
