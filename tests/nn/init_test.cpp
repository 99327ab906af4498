#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

namespace {

struct Moments {
  double mean = 0, variance = 0, largest = 0, kurtosis = 0;
};

template <class Init>
Moments moments(const Init& init) {
  st::Parameter weight(st::Shape{64, 32, 3, 5});  // fans: 480 in, 960 out
  init(weight, st::Rng(1));
  Moments m;
  const double count = double(weight.size());
  for (const float x : weight.value().span()) {
    m.mean += double(x) / count;
    m.variance += double(x) * double(x) / count;
    m.kurtosis += std::pow(double(x), 4) / count;
    m.largest = std::max(m.largest, std::abs(double(x)));
  }
  m.kurtosis /= m.variance * m.variance;
  return m;
}

template <class Init>
void check_variance(const Init& init, double variance, bool uniform) {
  const Moments m = moments(init);
  CHECK(std::abs(m.mean) < 5 * std::sqrt(variance / 30720));
  CHECK(m.variance == doctest::Approx(variance).epsilon(0.04));
  if (uniform) CHECK(m.largest <= std::sqrt(3 * variance) * 1.000001);
  if (uniform) CHECK(m.largest > std::sqrt(3 * variance) * 0.999);
  CHECK(m.kurtosis == doctest::Approx(uniform ? 1.8 : 3.0).epsilon(0.08));
}

std::vector<float> values(auto& net) {
  std::vector<float> all;
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    all.insert(all.end(), p.value().span().begin(), p.value().span().end());
  });
  return all;
}

}  // namespace

TEST_CASE("fans of a weight") {
  CHECK(st::fans(st::Shape{64, 32, 3, 5}).in == 480);
  CHECK(st::fans(st::Shape{64, 32, 3, 5}).out == 960);
  CHECK(st::fans(st::Shape{10, 7}).in == 7);
  CHECK(st::fans(st::Shape{10, 7}).out == 10);
}

TEST_CASE("initialisers draw with their variance") {
  const Moments normal = moments(st::Normal{.mean = 0.5f, .std = 0.02f}), uniform = moments(st::Uniform{-1, 3});
  CHECK(normal.mean == doctest::Approx(0.5).epsilon(1e-3));
  CHECK(normal.variance - 0.25 == doctest::Approx(0.0004).epsilon(0.05));  // about 0
  CHECK(uniform.mean == doctest::Approx(1).epsilon(0.02));
  CHECK(uniform.largest == doctest::Approx(3).epsilon(1e-3));
  check_variance(st::KaimingNormal(), 2.0 / 480, false);
  check_variance(st::KaimingNormal{.gain = 1}, 1.0 / 480, false);
  check_variance(st::KaimingUniform(), 2.0 / 480, true);
  check_variance(st::KaimingUniform{.gain = std::sqrt(1.0f / 3)}, 1.0 / 3 / 480, true);  // PyTorch's default
  check_variance(st::XavierNormal(), 2.0 / (480 + 960), false);
  check_variance(st::XavierUniform{.gain = 2}, 8.0 / (480 + 960), true);
  const Moments constant = moments(st::Constant{0.5f});
  CHECK(constant.largest == 0.5);
  CHECK(constant.mean == doctest::Approx(0.5));
}

TEST_CASE("orthogonal rows, or columns where there are more rows") {
  for (const st::Shape& shape : {st::Shape{5, 2, 3, 3}, st::Shape{20, 7}, st::Shape{6, 6}}) {
    st::Parameter weight(shape);
    st::to<double>(weight);
    st::Orthogonal{.gain = 1.5f}(weight, st::Rng(2));
    const std::int64_t rows = shape.n(), cols = weight.size() / rows, count = std::min(rows, cols);
    const double* w = weight.value<double>().data();
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::int64_t k = 0; k < std::max(rows, cols); ++k)
          dot += rows <= cols ? w[i * cols + k] * w[j * cols + k] : w[k * cols + i] * w[k * cols + j];
        CHECK(dot == doctest::Approx(i == j ? 2.25 : 0.0).epsilon(1e-10));
      }
  }
}

TEST_CASE("initialize draws weights by seed and place, and resets the rest") {
  using Net = st::Sequential<st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::PReLU<4>, st::Conv2d<4, 4>>;
  Net a, b;
  st::initialize(a, 1);
  st::for_each_parameter(b, [](const std::string&, st::Parameter& p) { p.value().fill(9); });
  b.layer<0>().bias.grad_target<float>();
  st::initialize(b, 1);
  CHECK(values(a) == values(b));
  CHECK_FALSE(b.layer<0>().bias.has_grad());
  CHECK(b.layer<0>().bias.value().data()[0] == 0.0f);
  CHECK(b.layer<1>().weight.value().data()[0] == 1.0f);
  CHECK(b.layer<2>().weight.value().data()[0] == 0.25f);
  CHECK(a.layer<0>().weight.value().data()[0] != a.layer<3>().weight.value().data()[0]);
  st::initialize(b, 2);
  CHECK(values(a) != values(b));
  st::initialize(b, 1, st::Constant{3.0f});
  CHECK(b.layer<3>().weight.value().data()[7] == 3.0f);

  Net wide = a;  // double gets the same numbers
  st::to<double>(wide);
  st::initialize(wide, 1);
  CHECK(float(wide.layer<0>().weight.value<double>().data()[5]) == a.layer<0>().weight.value().data()[5]);

  Net own;
  st::initialize(own, 1, [](st::Parameter& weight, st::Rng) { weight.value().fill(0.125f); });
  CHECK(own.layer<0>().weight.value().data()[0] == 0.125f);
}

namespace {

struct TwoLayers {
  st::Conv2d<4, 4> a, b;
};

/// The first weight of each of a network's layers, constructed first of all in a thread of its own.
template <class Net>
std::vector<float> default_weights() {
  std::vector<float> first;
  std::thread([&] {
    Net net;
    st::for_each_parameter(net, [&](const std::string&, const st::Parameter& p) {
      if (p.shape().rank() >= 2) first.push_back(p.value().data()[0]);
    });
  }).join();
  return first;
}

}  // namespace

TEST_CASE("no two layers are constructed with the same weights, and each run constructs them alike") {
  using Conv = st::Conv2d<4, 4>;
  const auto same = [](const auto& p, const auto& q) {
    return std::equal(p.weight.value().span().begin(), p.weight.value().span().end(), q.weight.value().span().begin());
  };
  TwoLayers two;
  CHECK_FALSE(same(two.a, two.b));
  const Conv copy = two.a;
  CHECK(same(copy, two.a));
  std::array<Conv, 3> array;
  CHECK_FALSE(same(array[0], array[2]));
  const st::Linear<36, 4> linear, other_linear;
  CHECK_FALSE(same(linear, other_linear));
  const st::ConvTranspose2d<4, 4, 4> transposed, other_transposed;
  CHECK_FALSE(same(transposed, other_transposed));
  const st::DepthwiseConv2d<4> depthwise, other_depthwise;
  CHECK_FALSE(same(depthwise, other_depthwise));

  // A Sequential constructs its last layer first, whatever order the standard library constructs a tuple's elements in.
  using Net = st::Sequential<Conv, st::ReLU, st::Repeat<2, st::Sequential<Conv, st::ReLU>>, Conv>;
  const std::vector<float> first = default_weights<Net>();
  REQUIRE(first.size() == 4);
  CHECK(first == default_weights<Net>());
  std::vector<float> one_by_one;
  std::thread([&] {
    for (int i = 0; i < 4; ++i) one_by_one.push_back(Conv().weight.value().data()[0]);
  }).join();
  CHECK(first == std::vector<float>{one_by_one[3], one_by_one[1], one_by_one[2], one_by_one[0]});
  CHECK(std::set<float>(first.begin(), first.end()).size() == 4);
}
