// Twenty training steps equal PyTorch's: from the same weights and batches, with SGD across two milestones of
// MultiStepLR, and with Adam. tests/golden/training.py makes the golden file.
#include "largest.hpp"
#include "strata/strata.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "test_data.hpp"

namespace st = strata;

namespace {

constexpr int steps = 20, batch = 4, size = 16;

using Net = st::Residual<st::Sequential<
    st::Conv2d<1, 8>, st::ReLU,
    st::Repeat<3, st::Sequential<st::Conv2d<8, 8, 3, st::no_bias>, st::BatchNorm2d<8>, st::ReLU>>,
    st::Conv2d<8, 1>>>;

st::Tensor<float> read(const st::SafetensorsFile& file, const std::string& name) {
  const st::TensorInfo* info = file.find(name);
  REQUIRE_MESSAGE(info != nullptr, name);
  return file.read<float>(*info);
}

// Batch `step` of a tensor of shape (steps, batch, size, size).
st::Image<1> batch_of(const st::Tensor<float>& all, int step) {
  const auto values = st::to_nchw(all);
  st::Image<1> image(batch, size, size);
  std::memcpy(image.data(), values.data() + std::size_t(step) * batch * size * size,
              sizeof(float) * batch * size * size);
  return image;
}

/// Trains from the golden start and compares the losses and all that the network holds in the end.
template <class MakeOptimizer>
void compare(const std::string& kind, MakeOptimizer make_optimizer) {
  const auto path = strata_test::golden("golden/training.safetensors");
  const st::SafetensorsFile file(path);
  const auto noisy = read(file, "noisy"), clean = read(file, "clean");
  const auto losses = file.read<double>(*file.find("losses." + kind));

  Net net;
  st::load_weights(path, net, {.prefix = "start."});
  auto optimizer = make_optimizer(net);
  st::MultiStepLR scheduler(optimizer, {.milestones = {8, 15}, .gamma = 0.3});
  const st::MSELoss mse;
  for (int step = 0; step < steps; ++step) {
    st::Train pass;
    const auto loss = mse(net(pass, batch_of(noisy, step)), batch_of(clean, step));
    optimizer.zero_grad();
    pass.backward(loss);
    optimizer.step();
    scheduler.step();
    const double expected = losses.data()[step], tolerance = step == 0 ? 1e-6 : 1e-4;
    CAPTURE(step);
    CHECK(std::abs(double(loss.item()) - expected) <= tolerance * expected);
  }

  Net golden;
  st::load_weights(path, golden, {.prefix = kind + "."});
  std::vector<std::pair<std::string, st::AnyTensor>> wanted;
  st::for_each_tensor(golden,
                      [&](const std::string& name, auto& leaf) { wanted.emplace_back(name, leaf.any_value()); });
  std::size_t next = 0;
  st::for_each_tensor(net, [&](const std::string& name, auto& leaf) {
    const auto& [golden_name, value] = wanted[next++];
    REQUIRE(golden_name == name);
    if (std::holds_alternative<st::Tensor<std::int64_t>>(value)) {
      CHECK(std::get<st::Tensor<std::int64_t>>(value).data()[0] ==
            std::get<st::Tensor<std::int64_t>>(leaf.any_value()).data()[0]);
      return;
    }
    const auto &expected = std::get<st::Tensor<float>>(value), &got = std::get<st::Tensor<float>>(leaf.any_value());
    double largest = 0, difference = 0;
    for (std::int64_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(double(expected.data()[i])));
      strata_test::keep_largest(difference, std::abs(double(expected.data()[i]) - double(got.data()[i])));
    }
    CAPTURE(name);
    CHECK(difference <= 1e-4 * std::max(largest, 1e-2));
  });
}

}  // namespace

TEST_CASE("twenty steps with SGD equal PyTorch's") {
  compare("sgd", [](Net& net) { return st::SGD(net, {.lr = 0.02, .momentum = 0.9, .weight_decay = 1e-4}); });
}

TEST_CASE("twenty steps with Adam equal PyTorch's") {
  compare("adam", [](Net& net) { return st::Adam(net, {.lr = 2e-3}); });
}
