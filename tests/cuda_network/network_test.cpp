// Whole networks on "cuda", whose kernels run on the host (tests/cuda_on_host): what they give, and what training makes
// of them, is the CPU's within rounding. The networks are ordinary host code; the device is found through
// strata::accelerator.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <ratio>
#include <string>
#include <vector>

#include "device/compare.hpp"
#include "device/training.hpp"

using namespace strata_test;

namespace {
const st::Device cuda = st::Device::cuda();
}

TEST_CASE("cuda: layers inside networks") {
  using st::BatchNorm2d;
  using st::Conv2d;
  using st::ReLU;
  using st::Sequential;
  compare<2>(cuda, Sequential<Conv2d<2, 4>, ReLU>(), 2, 5, 6);
  compare<2>(cuda, Sequential<Conv2d<2, 4, 3, st::no_bias>, BatchNorm2d<4>, ReLU>(), 2, 5, 6, 1e-4);
  compare<2>(cuda, Sequential<Conv2d<2, 4>, ReLU, BatchNorm2d<4>>(), 2, 5, 6, 1e-4);
  compare<2>(cuda,
             Sequential<Conv2d<2, 4, 3, st::Conv2dOptions{.stride = 2}>, st::LeakyReLU, st::MaxPool2d<2>,
                        st::Flatten<4, 2, 2>, st::Linear<16, 3>>(),
             2, 8, 8);
  compare<4>(cuda, Sequential<Conv2d<4, 8>, st::PixelShuffle<8, 2>, st::PReLU<2>, st::AvgPool2d<3, 1>>(), 1, 4, 5);
  compare<3>(cuda, Sequential<st::Dropout, Conv2d<3, 4, 1>, st::GlobalAvgPool2d>(), 2, 4, 3);
  // What one takes away the next must not have: behind an instance norm a channel's scale and shift have no gradient.
  compare<2>(cuda,
             Sequential<Conv2d<2, 6, 3, st::no_bias>, st::InstanceNorm2d<6>,
                        st::Upsample<2, st::UpsampleMode::bilinear>, st::GroupNorm<3, 6>,
                        st::Resize<std::ratio<2, 3>>, st::LayerNorm2d<6>>(),
             2, 6, 4, 1e-4);
}

TEST_CASE("cuda: training equals the CPU's") {
  compare_training<st::SGD>(cuda, st::SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3}, 0.5, 3);
  compare_training<st::Adam>(cuda, st::AdamOptions{.lr = 1e-3, .eps = 1e-4}, 0, 3);
  compare_training<st::RMSprop>(cuda, st::RMSpropOptions{.lr = 1e-2, .eps = 0.1}, 0, 3);
}

namespace {

/// A step in half precision on the device where the network is; the loss times `factor`, which is taken out of the
/// gradients again. Whether it was done.
bool half_step(SmallNet& net, st::SGD& sgd, st::GradScaler& scaler, std::uint32_t number, float factor = 1) {
  st::Train pass({.precision = st::Precision::fp16});
  const auto loss = mean(square(net(pass, random_image<1>(2, 9, 8, 2 * number).to(cuda)) -
                                random_image<1>(2, 9, 8, 2 * number + 1).to(cuda)));
  sgd.zero_grad();
  pass.backward(scaler.scale(loss * factor));
  scaler.unscale_(sgd);
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    const st::TensorSpan gradient{p.size(), p.grad().data()};
    st::accelerator(cuda).scale({&gradient, 1}, 1 / double(factor));
  });
  const bool done = scaler.step(sgd);
  scaler.update();
  return done;
}

/// Every parameter of two networks, without gradients.
void check_weights(SmallNet& given, SmallNet& wanted, double part) {
  std::vector<st::Tensor<>> values;
  st::for_each_parameter(wanted, [&](const std::string&, st::Parameter& p) { values.push_back(p.value()); });
  std::size_t i = 0;
  st::for_each_parameter(
      given, [&](const std::string& name, st::Parameter& p) { check_close(p.value(), values[i++], name, part); });
}

}  // namespace

TEST_CASE("cuda: half precision, with the loss scaled by itself") {
  SmallNet here;
  st::initialize(here, 2);
  SmallNet there = here;
  st::to(there, cuda);
  const SmallNet start = there;
  const st::SGDOptions options{.lr = 0.05, .momentum = 0.9};
  // Factors are rounded to 11 bits, by a part of up to 2^-11, in two convolutions forward and back; a batch norm's
  // gradient, in which most cancels, makes ten times that of it. From the second step on ReLUs that lie so near to 0
  // are open on one side alone, which changes gradients by the share of a pixel, and weights by a twentieth of that
  // (the learning rate).
  constexpr double part = 0.02;

  SUBCASE("training is float32's, to fp16's rounding") {
    st::SGD here_sgd(here, options), there_sgd(there, options);
    st::GradScaler scaler({.growth_interval = 2});
    for (std::uint32_t i = 0; i < 3; ++i) {
      training_step(here, here_sgd, i);
      CHECK(half_step(there, there_sgd, scaler, i));
    }
    CHECK(scaler.scale() == 2 * 65536);
    check_weights(there, here, part);
  }
  SUBCASE("gradients that are too small for fp16 are there with a scale, and vanish without") {
    st::SGD here_sgd(here, options), there_sgd(there, options);
    training_step(here, here_sgd, 0);
    st::GradScaler large({.init_scale = 0x1p40}), one({.init_scale = 1});
    CHECK(half_step(there, there_sgd, large, 0, 0x1p-40f));
    check_networks(there, here, part);

    SmallNet unscaled = start;
    st::SGD unscaled_sgd(unscaled, options);
    CHECK(half_step(unscaled, unscaled_sgd, one, 0, 0x1p-40f));
    const st::Tensor<> gradient = unscaled.body.layer<2>().blocks[0].layer<0>().weight.grad().to(st::Device::cpu());
    for (const float g : gradient.span()) CHECK(g == 0);
  }
  SUBCASE("a scale that overflows fp16 costs steps, and no weight changes in them") {
    st::SGD there_sgd(there, options);
    st::GradScaler scaler({.init_scale = 0x1p40});
    int left_out = 0;
    while (!half_step(there, there_sgd, scaler, 0)) {
      SmallNet before = start;
      check_weights(there, before, 0);
      REQUIRE(++left_out < 40);
    }
    CHECK(left_out > 5);
    CHECK(scaler.scale() == std::ldexp(1.0, 40 - left_out));
    // Batch statistics are the same in every try, so the step that was done at last is float32's.
    st::SGD here_sgd(here, options);
    training_step(here, here_sgd, 0);
    check_weights(there, here, part);
  }
}

TEST_CASE("cuda: a classifier's loss") {
  st::Sequential<st::Conv2d<1, 3>, st::ReLU, st::GlobalAvgPool2d> here;
  auto there = here;
  st::to(there, cuda);
  st::Tensor<st::Label> labels(st::Shape{4});
  for (std::int64_t i = 0; i < 4; ++i) labels.data()[i] = i % 3;
  const st::Image<1> x = random_image<1>(4, 5, 5, 1);
  st::Train here_pass, there_pass;
  const st::CrossEntropyLoss loss({.label_smoothing = 0.1});
  const auto here_loss = loss(here(here_pass, x), labels), there_loss = loss(there(there_pass, x.to(cuda)), labels);
  CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
  here_pass.backward(here_loss);
  there_pass.backward(there_loss);
  check_networks(there, here);
}
