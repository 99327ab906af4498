// DepthwiseConv2d as a layer: gradients, fusion with a ReLU, files, initialisation, errors. layers_test.cpp compares it
// with PyTorch's.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "autograd/random_image.hpp"
#include "largest.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

template <class Net>
Net random_net(std::uint64_t seed) {
  Net net;
  std::uint32_t index = 0;
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& parameter) {
    st::Rng rng(seed, 7, index++);
    for (float& x : parameter.value().span()) x = 0.5f * rng.normal();
  });
  return net;
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

constexpr st::Conv2dOptions strided{.stride = 2}, dilated{.padding = 1, .dilation = 2, .bias = false};
using Separable = st::Sequential<st::Conv2d<2, 19, 1>, st::BatchNorm2d<19>, st::ReLU, st::DepthwiseConv2d<19>, st::ReLU,
                                 st::Conv2d<19, 5, 1>, st::DepthwiseConv2d<5, 3, strided>, st::BatchNorm2d<5>, st::ReLU,
                                 st::DepthwiseConv2d<5, 3, dilated>>;

}  // namespace

TEST_CASE("gradients of depthwise convolutions") {
  const auto check = [](const auto& net, const auto& image) {
    const auto report = st::GradientCheck({.samples = 40})(net, image);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(random_net<st::DepthwiseConv2d<1>>(1), random_image<1>(1, 1, 1, 1));
  check(random_net<st::DepthwiseConv2d<3, 5>>(2), random_image<3>(2, 4, 9, 2));
  check(random_net<st::DepthwiseConv2d<17, 3, strided>>(3), random_image<17>(2, 7, 6, 3));
  check(random_net<st::DepthwiseConv2d<9, 3, dilated>>(4), random_image<9>(1, 7, 12, 4));
  check(random_net<st::DepthwiseConv2d<4, 7, st::no_bias>>(5), random_image<4>(1, 10, 11, 5));
  check(random_net<Separable>(6), random_image<2>(2, 9, 8, 6));
}

TEST_CASE("a depthwise convolution and the ReLU behind it are one step with the same bits") {
  using Net = st::Sequential<st::DepthwiseConv2d<19>, st::ReLU>;
  CHECK(st::detail::fused_length<true, 0, st::DepthwiseConv2d<19>, st::ReLU>() == 2);
  CHECK(st::detail::fused_length<false, 0, st::DepthwiseConv2d<19>, st::ReLU>() == 2);
  Net net = random_net<Net>(1), single = net;
  const auto image = random_image<19>(2, 9, 11, 2), target = random_image<19>(2, 9, 11, 3);
  st::Train a, b;
  const auto x = a.watch(image), z = b.watch(image);
  const auto y = net(a, x);
  const auto w = single.layer<1>()(b, single.layer<0>()(b, z));
  CHECK(same_bits(y.value(), w.value()));
  CHECK(*std::min_element(y.value().span().begin(), y.value().span().end()) == 0.0f);
  a.backward(st::MSELoss()(y, target));
  b.backward(st::MSELoss()(w, target));
  CHECK(same_bits(a.gradient(x), b.gradient(z)));
  CHECK(same_bits(net.layer<0>().weight.grad(), single.layer<0>().weight.grad()));
  CHECK(same_bits(net.layer<0>().bias.grad(), single.layer<0>().bias.grad()));
  st::Infer infer;
  const auto inferred = std::as_const(net)(infer, image);
  CHECK(same_bits(st::as_var(inferred).value(), y.value()));
}

TEST_CASE("inference takes batch norms into a depthwise convolution, and into each other, as folding does") {
  const auto check = []<class Net>(const Net& net, double tolerance) {
    const auto image = random_image<19>(2, 9, 11, 2);
    st::Infer pass;
    st::Image<19> one_by_one = image;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((one_by_one = st::as_var(net.template layer<I>()(pass, one_by_one)).value()), ...);
    }(std::make_index_sequence<Net::size>{});
    const st::Image<19> together = net(pass, image);
    double apart = 0, largest = 0;
    for (std::int64_t i = 0; i < together.size(); ++i) {
      strata_test::keep_largest(apart, std::abs(double(together.data()[i]) - double(one_by_one.data()[i])));
      largest = std::max(largest, std::abs(double(one_by_one.data()[i])));
    }
    CHECK(largest > 0);
    CHECK(apart < tolerance * largest);
  };
  using Norm = st::BatchNorm2d<19>;
  CHECK(st::detail::fused_length<false, 0, st::DepthwiseConv2d<19>, Norm, st::ReLU>() == 3);
  CHECK(st::detail::fused_length<true, 0, st::DepthwiseConv2d<19>, Norm, st::ReLU>() == 1);
  CHECK(st::detail::fused_length<false, 0, Norm, Norm, st::ReLU>() == 3);
  CHECK(st::detail::fused_length<true, 0, Norm, Norm, st::ReLU>() == 1);
  // A few roundings of float32.
  check(random_net<st::Sequential<st::DepthwiseConv2d<19>, Norm, st::ReLU>>(1), 1e-6);
  check(random_net<st::Sequential<st::DepthwiseConv2d<19, 5, st::no_bias>, Norm, Norm, st::ReLU>>(2), 1e-6);
  check(random_net<st::Sequential<Norm, Norm, st::ReLU>>(3), 1e-6);
}

TEST_CASE("gradients of a depthwise convolution are added to, and only where they are wanted") {
  auto net = random_net<st::DepthwiseConv2d<5>>(1);
  const auto image = random_image<5>(1, 6, 7, 2);
  const auto step = [&] {
    st::Train pass;
    pass.backward(sum(square(net(pass, image))));
  };
  step();
  const auto once = net.weight.grad().clone(), once_bias = net.bias.grad().clone();
  step();
  for (std::int64_t i = 0; i < once.size(); ++i)
    CHECK(net.weight.grad().data()[i] == doctest::Approx(2 * double(once.data()[i])));
  for (const bool of_weight : {true, false}) {
    auto part = random_net<st::DepthwiseConv2d<5>>(1);
    (of_weight ? part.bias : part.weight).requires_grad = false;
    st::Train pass;
    pass.backward(sum(square(part(pass, image))));
    if (of_weight)
      CHECK(same_bits(part.weight.grad(), once));
    else
      CHECK(same_bits(part.bias.grad(), once_bias));
  }
}

TEST_CASE("a depthwise convolution's names, shapes, start and errors") {
  std::vector<std::string> names;
  st::Sequential<st::DepthwiseConv2d<6, 5>, st::DepthwiseConv2d<6, 3, st::no_bias>> net;
  st::for_each_tensor(net,
                      [&](const std::string& name, auto& leaf) { names.push_back(name + " " + leaf.shape().str()); });
  CHECK(names == std::vector<std::string>{"0.weight " + st::Shape{6, 1, 5, 5}.str(), "0.bias " + st::Shape{6}.str(),
                                          "1.weight " + st::Shape{6, 1, 3, 3}.str()});
  CHECK(st::fans(net.layer<0>().weight.shape()).in == 25);
  CHECK(st::DepthwiseConv2d<6, 5>::name() == "DepthwiseConv2d(6, kernel_size=5, padding=2, groups=6)");
  static_assert(st::parameter_count<st::DepthwiseConv2d<6, 5>> == 6 * 25 + 6);
  static_assert(st::multiply_adds<st::DepthwiseConv2d<6, 5, strided>>(10, 20) == 5 * 10 * 6 * 25);
  st::Infer infer;
  st::DepthwiseConv2d<1, 5, st::Conv2dOptions{.padding = 0}> large;
  CHECK_THROWS_WITH_AS(large(infer, st::Image<1>::full(1, 4, 9, 0.0f)),
                       doctest::Contains("Conv2d(1, 1, kernel_size=5): an image of 4 x 9 pixels"), st::ShapeError);
  CHECK_THROWS_AS(large(infer, st::Image<1>(0, 9, 9)), st::ShapeError);
}
