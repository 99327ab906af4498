#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "golden/optim_golden.hpp"
#include "largest.hpp"
#include "optim/optim_test_net.hpp"
#include "message_of.hpp"
#include "strata/core/random.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/clip_grad.hpp"
#include "strata/optim/ema.hpp"
#include "strata/optim/rmsprop.hpp"
#include "strata/optim/sgd.hpp"

namespace st = strata;
using optim_test::Net;

namespace optim_test {

struct Large {
  st::Parameter weight{st::Shape{(1 << 15) + 77}};
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
};

struct WithBuffers {
  st::Parameter weight{st::Shape{1}, 1};
  st::Buffer mean{st::Shape{1}, 1};
  st::Buffer batches = st::Buffer::integers(st::Shape{});
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("mean", self.mean);
    f("batches", self.batches);
  }
};

}  // namespace optim_test

namespace {

template <class T>
constexpr double tolerance = sizeof(T) == 8 ? 1e-14 : 4e-7;

template <class T, std::size_t N>
void check_values(Net& net, const double (&wanted)[N], double error = tolerance<T>) {
  std::size_t i = 0;
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter& parameter) {
    for (const T x : parameter.value<T>().span()) {
      CAPTURE(name);
      CAPTURE(i);
      REQUIRE(i < N);
      CHECK(std::abs(double(x) - wanted[i]) <= error * (1 + std::abs(wanted[i])));
      ++i;
    }
  });
  CHECK(i == N);
}

template <class T, class Optimizer, std::size_t N>
void check_run(const auto& options, const double (&wanted)[N], int steps = 12, double error = tolerance<T>) {
  Net net;
  optim_test::start<T>(net);
  Optimizer optimizer(net, options);
  for (int t = 0; t < steps; ++t) {
    if (t == 6) optimizer.set_lr(0.02);
    optimizer.zero_grad();
    optim_test::set_gradients<T>(net, t);
    optimizer.step();
  }
  check_values<T>(net, wanted, error);
}

}  // namespace

TEST_CASE("optimisers give torch's numbers, in float64 and float32") {
  const st::SGDOptions plain{.lr = 0.05, .weight_decay = 0.01};
  const st::SGDOptions momentum{.lr = 0.05, .momentum = 0.9, .weight_decay = 0.01};
  const st::SGDOptions dampening{.lr = 0.05, .momentum = 0.8, .dampening = 0.3};
  const st::SGDOptions nesterov{.lr = 0.05, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true};
  const st::AdamOptions adam{.lr = 0.05, .betas = {0.8, 0.99}, .eps = 1e-6};
  const st::AdamOptions adam_decay{.lr = 0.05, .weight_decay = 0.1};
  const st::AdamWOptions adamw{.lr = 0.05, .weight_decay = 0.1};
  check_run<double, st::SGD>(plain, golden::sgd_plain_float64);
  check_run<float, st::SGD>(plain, golden::sgd_plain_float32);
  check_run<double, st::SGD>(momentum, golden::sgd_momentum_float64);
  check_run<float, st::SGD>(momentum, golden::sgd_momentum_float32);
  check_run<double, st::SGD>(dampening, golden::sgd_dampening_float64);
  check_run<float, st::SGD>(dampening, golden::sgd_dampening_float32);
  check_run<double, st::SGD>(nesterov, golden::sgd_nesterov_float64);
  check_run<float, st::SGD>(nesterov, golden::sgd_nesterov_float32);
  check_run<double, st::Adam>(adam, golden::adam_float64);
  check_run<float, st::Adam>(adam, golden::adam_float32);
  check_run<double, st::Adam>(adam_decay, golden::adam_decay_float64);
  check_run<float, st::Adam>(adam_decay, golden::adam_decay_float32);
  check_run<double, st::AdamW>(adamw, golden::adamw_float64);
  check_run<float, st::AdamW>(adamw, golden::adamw_float32);
}

TEST_CASE("twenty steps of RMSprop give torch's numbers, in float64 and float32") {
  const st::RMSpropOptions plain{.lr = 0.05};
  const st::RMSpropOptions momentum{.lr = 0.05, .alpha = 0.9, .eps = 1e-6, .weight_decay = 0.01, .momentum = 0.8};
  const st::RMSpropOptions centered{.lr = 0.05, .alpha = 0.8, .centered = true};
  const st::RMSpropOptions all{.lr = 0.05, .alpha = 0.95, .weight_decay = 0.1, .momentum = 0.5, .centered = true};
  check_run<double, st::RMSprop>(plain, golden::rmsprop_float64, 20);
  check_run<float, st::RMSprop>(plain, golden::rmsprop_float32, 20);
  check_run<double, st::RMSprop>(momentum, golden::rmsprop_momentum_float64, 20);
  check_run<float, st::RMSprop>(momentum, golden::rmsprop_momentum_float32, 20);
  check_run<double, st::RMSprop>(centered, golden::rmsprop_centered_float64, 20);
  // The variance of weight 8's gradients comes down to a hundredth of their squares. One rounding of those, 6e-8, is
  // 3e-6 of the step, whose length is ten learning rates: 1.5e-6 in the weight, and the compiler's fused multiply-adds
  // round otherwise.
  check_run<float, st::RMSprop>(centered, golden::rmsprop_centered_float32, 20, 5e-6);
  check_run<double, st::RMSprop>(all, golden::rmsprop_all_float64, 20);
  check_run<float, st::RMSprop>(all, golden::rmsprop_all_float32, 20);
}

TEST_CASE("RMSprop of equal gradients: a variance that rounds below 0 is 0") {
  optim_test::Large net;
  st::RMSprop rmsprop(net, {.lr = 1e-6, .alpha = 0.3, .eps = 1e-3, .centered = true});
  for (int t = 0; t < 40; ++t) {
    net.weight.zero_grad();
    float* grad = net.weight.grad_target<float>().data;
    for (std::int64_t i = 0; i < net.weight.size(); ++i) grad[i] = 1e-4f * float(i + 1);
    rmsprop.step();
  }
  CHECK(std::all_of(net.weight.value().span().begin(), net.weight.value().span().end(),
                    [](float x) { return std::isfinite(x); }));
}

TEST_CASE("large parameters: RMSprop's kernel gives the same bits on any number of threads") {
  const auto run = [](int threads) {
    const int before = st::num_threads();
    st::set_num_threads(threads);
    optim_test::Large net;
    st::Rng rng(3);
    rng.fill_normal(net.weight.value().span(), 0, 1);
    st::RMSprop rmsprop(net, {.momentum = 0.9, .centered = true});
    for (int t = 0; t < 3; ++t) {
      net.weight.zero_grad();
      rng.fill_normal({net.weight.grad_target<float>().data, std::size_t(net.weight.size())}, 0, 1);
      rmsprop.step();
    }
    st::set_num_threads(before);
    const auto span = net.weight.value().span();
    return std::vector<float>(span.begin(), span.end());
  };
  const auto one = run(1);
  CHECK(one == run(2));
  CHECK(one == run(3));
}

TEST_CASE("large parameters: the kernels agree with plain loops and do not depend on the number of threads") {
  const auto run = [](int threads, double* norm) {
    const int before = st::num_threads();
    st::set_num_threads(threads);
    optim_test::Large net;
    st::Rng rng(7);
    rng.fill_normal(net.weight.value().span(), 0, 1);
    st::AdamW adamw(net, {.lr = 0.01});
    for (int t = 0; t < 3; ++t) {
      net.weight.zero_grad();
      rng.fill_normal({net.weight.grad_target<float>().data, std::size_t(net.weight.size())}, 0, 1);
      *norm = st::clip_grad_norm_(net, 10.0);
      adamw.step();
    }
    st::set_num_threads(before);
    const auto span = net.weight.value().span();
    return std::vector<float>(span.begin(), span.end());
  };
  double norm1 = 0, norm3 = 0;
  const auto one = run(1, &norm1), three = run(3, &norm3);
  CHECK(one == three);
  CHECK(norm1 == norm3);

  st::Rng rng(7);  // the same draws, plain double loops
  std::vector<double> w(one.size()), m(one.size()), v(one.size());
  std::vector<float> draws(one.size());
  rng.fill_normal(draws, 0, 1);
  std::copy(draws.begin(), draws.end(), w.begin());
  double worst = 0;
  for (int t = 1; t <= 3; ++t) {
    rng.fill_normal(draws, 0, 1);
    double squares = 0;
    for (const float x : draws) squares += double(x) * double(x);
    const double factor = 10.0 / (std::sqrt(squares) + 1e-6);
    if (t == 3) CHECK(norm1 == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = double(draws[i]) * factor;
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      w[i] *= 1 - 0.01 * 0.01;
      w[i] -= 0.01 / (1 - std::pow(0.9, t)) * m[i] / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
    }
  }
  for (std::size_t i = 0; i < w.size(); ++i)
    strata_test::keep_largest(worst, std::abs(w[i] - double(one[i])) / (1 + std::abs(w[i])));
  CHECK(worst < 5e-7);
}

TEST_CASE("a parameter without a gradient is an error that names it and changes nothing") {
  Net net;
  optim_test::start<float>(net);
  st::SGD sgd(net, {.lr = 0.1, .momentum = 0.9});
  optim_test::set_gradients<float>(net, 0);
  net.bias.zero_grad();
  const float before = net.weight.value().data()[0];
  const std::string text = strata_test::message_of([&] { sgd.step(); });
  CHECK(text.find("'bias'") != std::string::npos);
  CHECK(net.weight.value().data()[0] == before);

  st::SGD tolerant(net, {.lr = 0.1, .allow_unused = true});
  const float bias = net.bias.value().data()[0];
  tolerant.step();
  CHECK(net.weight.value().data()[0] != before);
  CHECK(net.bias.value().data()[0] == bias);

  net.bias.requires_grad = false;  // frozen: needs none
  sgd.step();
  CHECK(net.bias.value().data()[0] == bias);
  net.weight.requires_grad = false;
  CHECK_THROWS_AS(sgd.step(), st::Error);
}

TEST_CASE("zero_grad forgets the gradients; a converted network is an error") {
  Net net;
  optim_test::start<float>(net);
  st::Adam adam(net);
  optim_test::set_gradients<float>(net, 0);
  adam.step();
  adam.zero_grad();
  CHECK_FALSE(net.weight.has_grad());
  CHECK_FALSE(net.bias.has_grad());
  optim_test::start<double>(net);
  optim_test::set_gradients<double>(net, 1);
  CHECK(strata_test::message_of([&] { adam.step(); }).find("'weight' changed its type") != std::string::npos);
}

TEST_CASE("impossible options are value errors") {
  Net net;
  optim_test::Empty empty;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(st::SGD(empty, {.lr = 0.1}), st::ValueError);
  CHECK_THROWS_AS(st::Adam{empty}, st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.lr = -0.1}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.lr = nan}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.momentum = 1}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.momentum = -0.1}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.momentum = 0.9, .dampening = 2}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.weight_decay = -1}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.nesterov = true}), st::ValueError);
  CHECK_THROWS_AS(st::SGD(net, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}), st::ValueError);
  CHECK_THROWS_AS(st::Adam(net, {.betas = {0.9, 1.0}}), st::ValueError);
  CHECK_THROWS_AS(st::Adam(net, {.eps = -1}), st::ValueError);
  CHECK_THROWS_AS(st::AdamW(net, {.weight_decay = nan}), st::ValueError);
  CHECK_THROWS_AS(st::RMSprop(net, {.alpha = 1}), st::ValueError);
  CHECK_THROWS_AS(st::RMSprop(net, {.eps = -1}), st::ValueError);
  CHECK_THROWS_AS(st::RMSprop(net, {.weight_decay = -1}), st::ValueError);
  CHECK_THROWS_AS(st::RMSprop(net, {.momentum = 1}), st::ValueError);
  st::SGD sgd(net);
  CHECK_THROWS_AS(sgd.set_lr(-1), st::ValueError);
  CHECK(sgd.lr() == 1e-3);
}

namespace {

template <class T, std::size_t N>
void check_clip(const double (&wanted)[N]) {
  Net net;
  optim_test::start<T>(net);
  optim_test::set_gradients<T>(net, 0);
  CHECK(st::clip_grad_norm_(net, 0.5) == doctest::Approx(wanted[0]).epsilon(1e-6));
  std::size_t i = 1;
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& parameter) {
    for (const T g : parameter.grad<T>().span()) CHECK(std::abs(double(g) - wanted[i++]) <= tolerance<T>);
  });
  const T first = net.weight.grad<T>().data()[0];
  st::clip_grad_norm_(net, 1.0);  // below the limit: as it was
  CHECK(net.weight.grad<T>().data()[0] == first);
}

template <class T, std::size_t N>
void check_ema(const double (&wanted)[N]) {
  Net net;
  optim_test::start<T>(net);
  st::ExponentialMovingAverage ema(net, {.decay = 0.9});
  st::SGD sgd(net, {.lr = 0.05});
  for (int t = 0; t < 12; ++t) {
    optim_test::set_gradients<T>(net, t);
    sgd.step();
    ema.update();
  }
  Net copy;
  st::to<T>(copy);
  ema.copy_to(copy);
  check_values<T>(copy, wanted);
  const T trained = net.weight.value<T>().data()[0];
  {
    const auto swapped = ema.swap();
    check_values<T>(net, wanted);
    CHECK_THROWS_AS(ema.update(), st::Error);
    CHECK_THROWS_AS((void)ema.swap(), st::Error);
  }
  CHECK(net.weight.value<T>().data()[0] == trained);
  ema.update();
  CHECK(ema.updates() == 13);
}

}  // namespace

TEST_CASE("clip_grad_norm_ gives torch's numbers; a gradient that is not finite is an error that names it") {
  check_clip<double>(golden::clip_norm_float64);
  check_clip<float>(golden::clip_norm_float32);
  Net net;
  optim_test::set_gradients<float>(net, 0);
  net.bias.grad().data()[3] = std::numeric_limits<float>::infinity();
  CHECK(strata_test::message_of([&] { st::clip_grad_norm_(net, 1.0); }).find("'bias'") != std::string::npos);
  CHECK_THROWS_AS(st::clip_grad_norm_(net, 0), st::ValueError);
}

TEST_CASE("clip_grad_value_ limits each element") {
  Net net;
  optim_test::set_gradients<float>(net, 0);
  std::vector<float> wanted;
  for (const float g : net.weight.grad().span()) wanted.push_back(std::min(0.3f, std::max(-0.3f, g)));
  net.bias.grad().data()[4] = std::numeric_limits<float>::quiet_NaN();
  st::clip_grad_value_(net, 0.3);
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(net.weight.grad().data()[i] == wanted[i]);
  CHECK(std::isnan(net.bias.grad().data()[4]));
  CHECK_THROWS_AS(st::clip_grad_value_(net, -1), st::ValueError);
}

TEST_CASE("the moving average gives torch's numbers and swaps in and out") {
  check_ema<double>(golden::ema_float64);
  check_ema<float>(golden::ema_float32);
  Net net;
  optim_test::Empty empty;
  CHECK_THROWS_AS(st::ExponentialMovingAverage(net, {.decay = 1.5}), st::ValueError);
  CHECK_THROWS_AS(st::ExponentialMovingAverage{empty}, st::ValueError);
}

TEST_CASE("the moving average that warms up forgets where it began") {
  Net net;
  optim_test::start<float>(net);
  st::ExponentialMovingAverage ema(net, {.decay = 0.3, .warmup = true});
  ema.update();  // copies
  double wanted = net.bias.value().data()[0];
  for (int n = 1; n < 6; ++n) {
    const double decay = std::min(0.3, (1.0 + n) / (10 + n));
    CHECK(ema.decay() == doctest::Approx(decay));
    wanted = decay * wanted + (1 - decay) * double(net.bias.value().data()[0] += 1);
    ema.update();
  }
  Net copy;
  ema.copy_to(copy);
  CHECK(copy.bias.value().data()[0] == doctest::Approx(wanted).epsilon(1e-6));
}

TEST_CASE("the moving average takes buffers when asked") {
  optim_test::WithBuffers net;
  st::ExponentialMovingAverage without(net, {.decay = 0.5}), with(net, {.decay = 0.5, .use_buffers = true});
  for (int i = 0; i < 2; ++i) {
    net.mean.value().data()[0] += 1;
    net.batches.value<std::int64_t>().data()[0] += 1;
    without.update();
    with.update();
  }
  {
    const auto swapped = with.swap();
    CHECK(net.mean.value().data()[0] == 2.5f);  // the first update copied 2, the second went half way to 3
    CHECK(net.batches.value<std::int64_t>().data()[0] == 2);
  }
  const auto swapped = without.swap();
  CHECK(net.mean.value().data()[0] == 3.0f);
}

namespace {
struct Reference {
  Net& net;
  static constexpr void visit(auto& self, auto&& f) { f("net", self.net); }
};
struct Tied {
  Reference first, second;
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("second", self.second);
  }
};
template <class Use>
void check_gone(Use&& use, const char* what) {
  CHECK_THROWS_WITH_AS(use(), doctest::Contains(what), st::Error);
}
}  // namespace

TEST_CASE("a network that has moved or gone under its optimiser is an error that says so") {
  {
    auto net = std::make_unique<Net>();
    st::Adam adam(*net);
    st::ExponentialMovingAverage ema(*net);
    const Net moved = std::move(*net);
    check_gone([&] { adam.zero_grad(); },
               "Adam: 'weight' was moved (by std::move, std::swap, or a std::vector that grew)");
    check_gone([&] { adam.step(); }, "was moved");
    check_gone([&] { adam.each_parameter([](const auto&, auto&) {}); }, "was moved");
    check_gone([&] { ema.update(); }, "ExponentialMovingAverage: 'weight' was moved");
    check_gone([&] { (void)ema.swap(); }, "was moved");
  }
  {
    auto net = std::make_unique<Net>();
    st::SGD sgd(*net);
    st::RMSprop rmsprop(*net);
    st::ExponentialMovingAverage ema(*net);
    {
      const auto swapped = ema.swap();
      net.reset();
    }
    check_gone([&] { sgd.zero_grad(); }, "SGD: 'weight' was destroyed");
    check_gone([&] { sgd.step(); }, "must outlive it and stay where it is");
    check_gone([&] { rmsprop.step(); }, "was destroyed");
    check_gone([&] { ema.update(); }, "was destroyed");
  }
  {
    std::vector<Net> nets(1);
    st::SGD sgd(nets[0]);
    nets.resize(7);
    check_gone([&] { sgd.step(); }, "a std::vector that grew");
  }
  {
    Net a, b;
    st::SGD of_a(a), of_b(b);
    std::swap(a, b);
    check_gone([&] { of_a.zero_grad(); }, "was moved");
    check_gone([&] { of_b.zero_grad(); }, "was moved");
    st::SGD again(a);
    optim_test::set_gradients<float>(a, 0);
    CHECK_NOTHROW(again.step());
  }
}

TEST_CASE("numbers assigned to a network are its optimiser's to change") {
  Net net, best;
  start<float>(net);
  start<float>(best);
  st::SGD sgd(net, {.lr = 1});
  optim_test::set_gradients<float>(net, 0);
  sgd.step();
  net = best;  // as when the best weights so far are put back
  optim_test::set_gradients<float>(net, 0);
  sgd.step();
  CHECK(net.weight.value().data()[2] == best.weight.value().data()[2] - net.weight.grad().data()[2]);
}

TEST_CASE("one parameter under two names is refused") {
  Net net;
  Tied tied{{net}, {net}};
  CHECK_THROWS_WITH_AS(st::SGD(tied, {.lr = 1}),
                       doctest::Contains("SGD: 'first.net.weight' and 'second.net.weight' are one parameter"),
                       st::Error);
}
