// Loss scaling on the CPU, where the mathematics can be tested in float32: a scale that is a power of two changes no
// bit.
#include <doctest/doctest.h>

#include <filesystem>
#include <limits>
#include <vector>

#include "golden/optim_golden.hpp"
#include "optim/optim_test_net.hpp"
#include "strata/strata.hpp"

namespace st = strata;
using optim_test::Net;

namespace {

/// The steps of grad_scaler in optim_golden.py.
template <class T, std::size_t N>
void check_golden(const double (&wanted)[N]) {
  Net net;
  optim_test::start<T>(net);
  st::Adam adam(net, {.lr = 0.05});
  st::GradScaler scaler({.init_scale = 1024, .growth_factor = 4, .growth_interval = 3});
  for (int t = 0; t < 24; ++t) {
    CHECK(scaler.scale() == wanted[t]);
    optim_test::set_gradients<T>(net, t);
    st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
      for (T& g : p.grad<T>().span()) g *= T(scaler.scale());
    });
    const bool infinite = t == 4 || t == 5 || t == 11;
    if (infinite) net.bias.grad<T>().data()[3] = std::numeric_limits<T>::infinity();
    CHECK(scaler.step(adam) == !infinite);
    scaler.update();
  }
  std::size_t i = 24;
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter& p) {
    for (const T x : p.value<T>().span()) {
      CAPTURE(name);
      REQUIRE(i < N);
      // 21 steps of Adam, each rounded a few times
      CHECK(std::abs(double(x) - wanted[i]) <= (sizeof(T) == 8 ? 1e-14 : 6e-7) * (1 + std::abs(wanted[i])));
      ++i;
    }
  });
  CHECK(i == N);
}

using SmallNet = st::Sequential<st::Conv2d<1, 4>, st::BatchNorm2d<4>, st::ReLU, st::Conv2d<4, 1>>;

st::Image<1> image(std::uint32_t number) {
  st::Image<1> out(2, 6, 7);
  st::Rng rng(5, number);
  for (float& x : out.span()) x = rng.uniform(-1, 1);
  return out;
}

/// A step; with a large `factor` the loss is 0 and its gradient infinite.
template <class Optimizer>
bool step(SmallNet& net, Optimizer& optimizer, st::GradScaler& scaler, std::uint32_t number, float factor = 1,
          double clip = 0) {
  st::Train pass;
  auto loss = mean(square(net(pass, image(2 * number)) - image(2 * number + 1)));
  if (factor != 1) loss = (loss - loss.item()) * factor;
  optimizer.zero_grad();
  pass.backward(scaler.scale(loss));
  if (clip > 0 && scaler.unscale_(optimizer)) st::clip_grad_norm_(net, clip);
  const bool done = scaler.step(optimizer);
  scaler.update();
  return done;
}

std::vector<float> weights(SmallNet& net) {
  std::vector<float> all;
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    const auto span = p.value().span();
    all.insert(all.end(), span.begin(), span.end());
  });
  return all;
}

}  // namespace

TEST_CASE("the scale, the steps that are left out and the weights are torch.amp.GradScaler's") {
  check_golden<double>(golden::grad_scaler_float64);
  check_golden<float>(golden::grad_scaler_float32);
}

TEST_CASE("training with a scaled loss gives the bits of training without, clipped or not") {
  for (const double clip : {0.0, 0.05}) {
    SmallNet plain, scaled;
    st::initialize(plain, 1), st::initialize(scaled, 1);
    st::Adam plain_adam(plain, {.lr = 1e-2}), scaled_adam(scaled, {.lr = 1e-2});
    st::GradScaler none({.enabled = false}), scaler({.growth_interval = 2});
    for (std::uint32_t i = 0; i < 6; ++i) {
      CHECK(step(plain, plain_adam, none, i, 1, clip));
      CHECK(step(scaled, scaled_adam, scaler, i, 1, clip));
    }
    CHECK(none.scale() == 1);
    CHECK(scaler.scale() == 65536 * 8);
    CHECK(weights(scaled) == weights(plain));
  }
}

TEST_CASE("a step with an infinite gradient changes no weight, and the scale falls until gradients are finite") {
  SmallNet net;
  st::initialize(net, 1);
  st::SGD sgd(net, {.lr = 0, .momentum = 0.9});
  st::GradScaler scaler({.init_scale = 0x1p20, .growth_interval = 1});
  // Sums over 84 pixels of gradients of the order of factor * scale / 84: infinite at the scale that begins.
  const float factor = 0x1p110f;
  const std::vector<float> before = weights(net);
  int left_out = 0;
  while (!step(net, sgd, scaler, 0, factor)) {
    CHECK(weights(net) == before);
    CHECK(scaler.scale() == std::ldexp(1.0, 20 - ++left_out));
    REQUIRE(left_out < 20);
  }
  CHECK(scaler.scale() == std::ldexp(1.0, 21 - left_out));
  // A loss whose product with the scale is infinite: the scale falls before anything goes back.
  const st::Scalar<float> large(0x1p120f);
  CHECK(std::isfinite(scaler.scale(large).item()));
  CHECK(scaler.scale() < 0x1p8);
}

TEST_CASE("gradients that are never finite are an error, not a run without steps") {
  Net net;
  optim_test::start<float>(net);
  st::SGD sgd(net, {.lr = 0.1});
  st::GradScaler scaler;
  const auto forever = [&] {
    for (int i = 0; i < 1000; ++i) {
      optim_test::set_gradients<float>(net, 0);
      net.weight.grad().data()[2] = std::numeric_limits<float>::quiet_NaN();
      CHECK_FALSE(scaler.step(sgd));
      scaler.update();
    }
  };
  CHECK_THROWS_WITH_AS(forever(), doctest::Contains("not half precision that overflows"), st::NumericError);
}

TEST_CASE("a checkpoint keeps the scale and the count: the resumed run is the same run") {
  const auto path = std::filesystem::temp_directory_path() / "strata_grad_scaler_test.safetensors";
  const st::GradScalerOptions options{.init_scale = 256, .growth_interval = 3};
  SmallNet net;
  st::initialize(net, 1);
  st::Adam adam(net, {.lr = 1e-2});
  st::GradScaler scaler(options);
  for (std::uint32_t i = 0; i < 5; ++i) step(net, adam, scaler, i);
  CHECK(scaler.scale() == 512);
  CHECK(scaler.growth_tracker() == 2);
  st::save_checkpoint(path, {}, net, adam, scaler);

  SmallNet resumed;
  st::Adam resumed_adam(resumed, {.lr = 1e-2});
  st::GradScaler resumed_scaler(options), none({.enabled = false});
  // half of the state would be lost
  CHECK_THROWS_AS(st::load_checkpoint(path, resumed, resumed_adam, none), st::FileError);
  st::load_checkpoint(path, resumed, resumed_adam, resumed_scaler);
  for (std::uint32_t i = 5; i < 9; ++i) {
    step(net, adam, scaler, i);
    step(resumed, resumed_adam, resumed_scaler, i);
    CHECK(resumed_scaler.scale() == scaler.scale());
  }
  CHECK(weights(resumed) == weights(net));

  st::save_checkpoint(path, {}, net, adam, none);  // has no state: the file is one without a scaler
  st::load_checkpoint(path, resumed, resumed_adam);
  std::filesystem::remove(path);
  std::filesystem::remove(st::previous_path(path));
}

TEST_CASE("calls in an order that would scale twice, or not at all, are errors") {
  Net net;
  optim_test::start<float>(net);
  st::SGD sgd(net, {.lr = 0.1});
  st::GradScaler scaler;
  CHECK_THROWS_WITH_AS(scaler.update(), doctest::Contains("call step() first"), st::Error);
  CHECK_THROWS_WITH_AS(scaler.step(sgd), doctest::Contains("call backward first"), st::Error);
  optim_test::set_gradients<float>(net, 0);
  CHECK(scaler.unscale_(sgd));
  CHECK_THROWS_WITH_AS(scaler.unscale_(sgd), doctest::Contains("unscaled already"), st::Error);
  CHECK(scaler.step(sgd));
  CHECK_THROWS_WITH_AS(scaler.step(sgd), doctest::Contains("called twice"), st::Error);
  scaler.update();
  for (const st::GradScalerOptions& wrong :
       {st::GradScalerOptions{.init_scale = 0}, {.growth_factor = 1}, {.backoff_factor = 1}, {.growth_interval = 0}})
    CHECK_THROWS_AS(st::GradScaler{wrong}, st::ValueError);
}
