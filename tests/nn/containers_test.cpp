// Sequential, Repeat, Residual and modules of one's own: fused layers give what single ones give, gradients are right,
// networks can be const, copied, and used by any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <thread>
#include <vector>

#include "autograd/random_image.hpp"
#include "child_process.hpp"
#include "largest.hpp"
#include "strata/autograd/custom_op.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// Random weights everywhere, so that no gradient is 0 for want of a bias.
template <class Net>
Net random_net(std::uint64_t seed) {
  Net net;
  std::uint32_t index = 0;
  st::for_each_tensor(net, [&](const std::string& name, auto& leaf) {
    st::Rng rng(seed, 7, index++);
    if (name.ends_with("num_batches_tracked")) return;
    for (float& x : leaf.value().span())
      x = name.ends_with("running_var") ? rng.uniform(0.5f, 2.0f) : 0.5f * rng.normal();
  });
  return net;
}

using Block = st::Sequential<st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::ReLU>;
using Fusable = st::Sequential<st::Conv2d<2, 4>, st::ReLU, st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::ReLU,
                               st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::BatchNorm2d<4>, st::ReLU, st::Conv2d<4, 3>>;

/// The layers of a Sequential one by one, so that nothing can be fused.
template <std::size_t I = 0, class Net, class P, class X>
auto one_by_one(Net& net, P& pass, const X& x) {
  if constexpr (I == Net::size)
    return x;
  else
    return one_by_one<I + 1>(net, pass, net.template layer<I>()(pass, x));
}

template <class A, class B>
double distance(const A& a, const B& b) {
  REQUIRE(a.shape() == b.shape());
  double largest = 0, error = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double(a.data()[i])));
    strata_test::keep_largest(error, std::abs(double(a.data()[i]) - double(b.data()[i])));
  }
  return error / largest;
}

/// Two branches, a skip, a loop, members in a list: what a module of one's own may do.
struct Branches {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 3, 1> left;
  st::Sequential<st::Conv2d<2, 3>, st::ReLU> right;
  std::vector<st::Conv2d<6, 6, 1>> middle = std::vector<st::Conv2d<6, 6, 1>>(2);
  std::optional<st::Conv2d<6, 2>> last = st::Conv2d<6, 2>();
  float scale = 0.3f;

  static constexpr void visit(auto& self, auto&& f) {
    f("left", self.left);
    f("right", self.right);
    f("middle", self.middle);
    f("last", self.last);
  }
  auto operator()(auto& pass, const auto& x) { return forward(*this, pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const { return forward(*this, pass, x); }

 private:
  static auto forward(auto& self, auto& pass, const auto& x) {
    const auto left = self.left(pass, x), right = self.right(pass, x);
    auto y = st::cat(pass, left, right);
    for (auto& layer : self.middle) y = layer(pass, y);
    return st::as_var(x + self.scale * (*self.last)(pass, y));
  }
};

}  // namespace

TEST_CASE("fused layers give what single layers give") {
  const auto image = random_image<2>(2, 7, 5, 1);
  const auto target = random_image<3>(2, 7, 5, 2);
  Fusable fused = random_net<Fusable>(3), single = fused;

  st::Train a, b;
  const auto x = a.watch(image), z = b.watch(image);
  const auto y = fused(a, x);
  const auto w = one_by_one(single, b, z);
  CHECK(distance(w.value(), y.value()) < 1e-5);
  a.backward(st::MSELoss()(y, target));
  b.backward(st::MSELoss()(w, target));
  CHECK(distance(b.gradient(z), a.gradient(x)) < 1e-5);
  std::vector<st::Parameter*> parameters;
  st::for_each_parameter(single, [&](const std::string&, st::Parameter& p) { parameters.push_back(&p); });
  std::size_t i = 0;
  st::for_each_parameter(fused, [&](const std::string& name, st::Parameter& p) {
    CAPTURE(name);
    if (name != "2.bias" && name != "5.bias")  // before batch norm: 0 but for rounding
      CHECK(distance(parameters[i]->grad(), p.grad()) < 1e-5);
    ++i;
  });
  std::vector<float> statistics;
  st::for_each_buffer(single, [&](const std::string& name, st::Buffer& buffer) {
    if (!name.ends_with("tracked"))
      statistics.insert(statistics.end(), buffer.value().span().begin(), buffer.value().span().end());
  });
  std::size_t at = 0;
  st::for_each_buffer(fused, [&](const std::string& name, st::Buffer& buffer) {
    if (!name.ends_with("tracked"))
      for (const float value : buffer.value().span())
        CHECK(value == doctest::Approx(double(statistics[at++])).epsilon(1e-5));
  });

  st::Infer infer;
  const Fusable& fixed = fused;
  CHECK(distance(one_by_one(fixed, infer, image), fixed(infer, image)) < 1e-5);
}

TEST_CASE("what is not a number goes through fused layers too") {
  auto image = random_image<2>(1, 6, 6, 1);
  image.data()[30] = std::numeric_limits<float>::quiet_NaN();
  const Fusable net = random_net<Fusable>(3);
  st::Infer infer;
  const auto y = net(infer, image);
  CHECK(std::any_of(y.value().span().begin(), y.value().span().end(), [](float v) { return std::isnan(v); }));
  Fusable trained = net;
  st::Train pass;
  CHECK_THROWS_AS(pass.backward(mean(square(trained(pass, image)))), st::NumericError);

  const auto infinite = st::Image<2>::full(1, 1, 1, -std::numeric_limits<float>::infinity());
  CHECK(st::ReLU()(infer, infinite).data()[0] == 0.0f);
}

TEST_CASE("gradients of containers") {
  const auto check = [](const auto& net, const auto& image) {
    const auto report = st::GradientCheck({.samples = 30})(net, image);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(random_net<Fusable>(5), random_image<2>(2, 5, 4, 1));
  check(random_net<st::Residual<st::Sequential<st::Conv2d<2, 4>, st::ReLU, st::Repeat<2, Block>, st::Conv2d<4, 2>>>>(6),
        random_image<2>(2, 4, 5, 2));
  check(random_net<Branches>(7), random_image<2>(1, 4, 5, 3));
  check(random_net<
            st::Sequential<st::Conv2d<2, 8, 3, st::Conv2dOptions{.stride = 2}>, st::PReLU<8>, st::PixelShuffle<8, 2>,
                           st::AvgPool2d<2>, st::LeakyReLU, st::Dropout, st::Flatten<2, 2, 2>, st::Linear<8, 5>>>(8),
        random_image<2>(2, 3, 4, 4));
  check(random_net<st::Sequential<st::Conv2d<2, 4>, st::MaxPool2d<2>, st::BatchNorm2d<4>, st::GlobalAvgPool2d,
                                  st::Linear<4, 3>>>(9),
        random_image<2>(3, 6, 4, 5));
}

namespace {

/// A module written as nn/module.hpp shows.
template <class Body>
struct Gated : st::Layer<Gated<Body>> {
  using io = typename Body::io;
  Body body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) { return x * sigmoid(self.body(pass, x)); }
};

}  // namespace

TEST_CASE("skip connections, and a module with one forward for everything") {
  using Body = st::Conv2d<2, 2, 3>;
  const auto image = random_image<2>(2, 5, 6, 3);
  st::Infer pass;
  const auto skips = [&]<class Net>(const Net& net, float of_x, float of_body) {
    const auto body = net.body(pass, image).value();
    const auto y = st::as_var(net(pass, image)).value();
    for (std::int64_t i = 0; i < y.size(); ++i)
      CHECK(y.data()[i] == doctest::Approx(double(of_x * image.data()[i] + of_body * body.data()[i])).epsilon(1e-5));
  };
  skips(random_net<st::Add<Body>>(1), 1, 1);
  skips(random_net<st::Add<Body, std::ratio<1, 10>>>(2), 1, 0.1f);
  skips(random_net<st::Subtract<Body>>(3), 1, -1);
  CHECK(std::is_same_v<st::Residual<Body>, st::Subtract<Body>>);

  const auto check = [](const auto& net, const auto& x) {
    const auto report = st::GradientCheck({.samples = 30})(net, x);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  using Net =
      st::Add<st::Sequential<Gated<st::Sequential<Body, st::BatchNorm2d<2>, st::ReLU>>, Gated<Body>>, std::ratio<1, 2>>;
  check(random_net<Net>(4), image);
  static_assert(st::receptive_field<Net> == 5);
  static_assert(st::parameter_count<Gated<Body>> == 38);
}

TEST_CASE("gradients of losses") {
  const auto p = random_image<3>(2, 4, 3, 1), t = random_image<3>(2, 4, 3, 2);
  const auto check = [&](const auto& loss) {
    const auto report = st::gradient_check([&](auto&, const auto& a, const auto& b) { return loss(a, b); }, p, t);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(st::MSELoss());
  check(st::MSELoss({.reduction = st::Reduction::half_sum}));
  check(st::L1Loss());
  check(st::CharbonnierLoss());
  st::Tensor<st::Label> labels(st::Shape{24});
  for (std::int64_t i = 0; i < 24; ++i) labels.data()[i] = i % 3;
  const auto report =
      st::gradient_check([&](auto&, const auto& x) { return st::CrossEntropyLoss()(5 * x, labels); }, p);
  CHECK_MESSAGE(report.ok(), report.str());

  CHECK(st::MSELoss({.reduction = st::Reduction::half_sum})(p, t).item() ==
        doctest::Approx(double(st::MSELoss({.reduction = st::Reduction::sum})(p, t).item()) / 2));
  CHECK_THROWS_AS(st::MSELoss()(st::Image<1>(), st::Image<1>()), st::ShapeError);
  CHECK_THROWS_AS(st::CharbonnierLoss({.epsilon = 0}), st::ValueError);
  labels.data()[5] = 3;
  CHECK_THROWS_WITH_AS(st::CrossEntropyLoss()(p, labels), doctest::Contains("label 3 is no class"), st::ValueError);
  labels.data()[5] = -1;
  CHECK_THROWS_AS(st::CrossEntropyLoss()(p, labels), st::ValueError);
  CHECK_THROWS_AS(st::CrossEntropyLoss()(p, st::Tensor<st::Label>(st::Shape{23})), st::ShapeError);
  // Logits far out do not overflow.
  const auto far = st::Image<2>::full(1, 1, 1, 1000.0f);
  CHECK(st::CrossEntropyLoss()(far, st::Tensor<st::Label>::zeros(st::Shape{1})).item() ==
        doctest::Approx(std::log(2.0)));
}

TEST_CASE("a const network infers, a copy is its own") {
  const auto image = random_image<2>(1, 6, 5, 1);
  Branches net = random_net<Branches>(1);
  const Branches copy = net;
  st::Infer infer;
  const auto before = copy(infer, image).value().clone();
  CHECK(distance(before, net(infer, image).value()) == 0);
  for (int round = 0; round < 2; ++round) {
    st::Train pass;
    pass.backward(mean(square(net(pass, image))));
  }
  st::for_each_parameter(net, [](const std::string&, st::Parameter& p) { p.value().fill(0.25f); });
  CHECK(distance(before, copy(infer, image).value()) == 0);
  CHECK(distance(before, net(infer, image).value()) > 0.01);
  st::for_each_parameter(copy, [](const std::string&, const st::Parameter& p) { CHECK_FALSE(p.has_grad()); });
}

namespace {

/// The numbers that a step of training and an inference give: loss, gradients, image.
std::vector<float> step_and_inference() {
  using Net =
      st::Residual<st::Sequential<st::Conv2d<2, 16>, st::ReLU, st::Conv2d<16, 16, 3, st::no_bias>, st::BatchNorm2d<16>,
                                  st::ReLU, st::Dropout, st::PReLU<16>, st::Conv2d<16, 2>>>;
  const auto image = random_image<2>(3, 45, 51, 1);
  Net net = random_net<Net>(2);
  std::vector<float> all;
  const auto keep = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
  st::Train pass({.seed = 1, .step = 3});
  const auto x = pass.watch(image);
  const auto loss = mean(sqrt(square(net(pass, x) - image) + 1e-3f));
  pass.backward(loss);
  all.push_back(loss.item());
  keep(pass.gradient(x).span());
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) { keep(p.grad().span()); });
  st::Infer infer;
  keep(st::as_var(std::as_const(net)(infer, image)).value().span());
  return all;
}

}  // namespace

TEST_CASE("the bits do not depend on the number of threads") {
  const int before = st::num_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    st::set_num_threads(threads);
    results.push_back(step_and_inference());
  }
  st::set_num_threads(before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("a child of fork trains and infers, though other threads of its parent were about that too") {
  if (!strata_test::children_may_have_threads) return;
  const int before = st::num_threads();
  st::set_num_threads(2);
  const std::vector<float> wanted = step_and_inference();
  const auto child = [&] { return step_and_inference() == wanted ? 0 : 1; };
  CHECK(strata_test::in_child(child) == 0);
  std::atomic<bool> stop = false;
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i)
    others.emplace_back([&] {
      while (!stop) step_and_inference();
    });
  for (int round = 0; round < 5; ++round) CHECK(strata_test::in_child(child) == 0);
  stop = true;
  for (std::thread& thread : others) thread.join();
  st::set_num_threads(before);
}

TEST_CASE("images that do not fit say which layer wants what") {
  st::Train pass;
  st::Infer infer;
  st::Conv2d<1, 1, 5, st::Conv2dOptions{.padding = 0}> conv;
  CHECK_THROWS_WITH_AS(conv(infer, st::Image<1>::full(1, 4, 9, 0.0f)), doctest::Contains("4 x 9 pixels"),
                       st::ShapeError);
  CHECK_THROWS_AS(conv(infer, st::Image<1>(0, 9, 9)), st::ShapeError);
  st::BatchNorm2d<2> norm;
  CHECK_THROWS_WITH_AS(norm(pass, st::Image<2>::full(1, 1, 1, 0.0f)), doctest::Contains("one value per channel"),
                       st::ShapeError);
  CHECK_NOTHROW(norm(infer, st::Image<2>::full(1, 1, 1, 0.0f)));
  CHECK_THROWS_WITH_AS(st::MaxPool2d<3>()(infer, st::Image<1>::full(1, 2, 5, 0.0f)),
                       doctest::Contains("MaxPool2d(kernel_size=3, stride=3): an image of 2 x 5 pixels"),
                       st::ShapeError);
  CHECK_THROWS_WITH_AS((st::Linear<4, 2>()(infer, st::Image<4>::full(1, 1, 2, 0.0f))),
                       doctest::Contains("wanted 1 x 1"), st::ShapeError);
  CHECK_THROWS_WITH_AS((st::Flatten<1, 2, 2>()(infer, st::Image<1>::full(1, 2, 3, 0.0f))),
                       doctest::Contains("wanted 2 x 2"), st::ShapeError);
  st::Conv2d<1, 1> converted;
  st::to<double>(converted);
  CHECK_THROWS_WITH_AS(converted(infer, st::Image<1>::full(1, 3, 3, 0.0f)), doctest::Contains("holds float64"),
                       st::Error);
}
