// Compares a small ready network with what its PyTorch original gave: golden/networks.py, whose numbers it computes
// again.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <variant>

#include "golden/networks_golden.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/nn/module.hpp"
#include "strata/tensor/image.hpp"

namespace networks_test {

namespace st = strata;

/// The numbers from -0.5 to 0.5 of a tensor of this name.
class Numbers {
 public:
  explicit Numbers(std::string_view name) {
    for (const char c : name) seed_ = (seed_ ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  float operator()(std::int64_t i) const {
    std::uint32_t x = std::uint32_t(std::uint64_t(i) * 2654435761u) + seed_;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    return float(double(x) / 4294967296.0 - 0.5);
  }

 private:
  std::uint32_t seed_ = 2166136261u;
};

/// Calls f(number, place) with each element's number in PyTorch's order, and its place in memory (N, H, W, C).
void each_place(const st::Shape& shape, auto&& f) {
  if (shape.rank() != 4) {
    for (std::int64_t i = 0; i < shape.size(); ++i) f(i, i);
    return;
  }
  std::int64_t i = 0;
  for (std::int64_t n = 0; n < shape.n(); ++n)
    for (std::int64_t c = 0; c < shape.c(); ++c)
      for (std::int64_t h = 0; h < shape.h(); ++h)
        for (std::int64_t w = 0; w < shape.w(); ++w) f(i++, ((n * shape.h() + h) * shape.w() + w) * shape.c() + c);
}

inline double project(std::string_view name, const st::Tensor<double>& x) {
  const Numbers numbers(name);
  double sum = 0;
  each_place(x.shape(), [&](std::int64_t i, std::int64_t place) { sum += double(numbers(i)) * x.data()[place]; });
  return sum;
}

inline void start(const std::string& name, st::Tensor<float>& x) {
  const Numbers numbers(name);
  const bool matrix = x.shape().rank() > 1,
             around_one = !matrix && (name.ends_with("running_var") || name.ends_with("weight"));
  const double scale = matrix ? std::sqrt(24.0 / (double(x.size()) / double(x.shape()[0]))) : around_one ? 0.5 : 0.4;
  float* const to = x.data();
  each_place(x.shape(), [&](std::int64_t i, std::int64_t place) {
    to[place] = float((around_one ? 1 : 0) + scale * double(numbers(i)));
  });
}

template <class Net>
void start(Net& net) {
  st::for_each_tensor(net, [](const std::string& name, auto& leaf) {
    if (auto* x = std::get_if<st::Tensor<float>>(&leaf.any_value())) start(name, *x);
  });
}

template <int C>
st::Image<C> image(std::int64_t h, std::int64_t w) {
  st::Image<C> x(2, h, w);
  const Numbers numbers("image");
  float* const to = x.data();
  each_place(x.shape(), [&](std::int64_t i, std::int64_t place) { to[place] = numbers(i) + 0.5f; });
  return x;
}

inline const NetworkGolden& golden(std::string_view name) {
  for (const NetworkGolden& one : network_goldens)
    if (one.name == name) return one;
  FAIL("no golden numbers of this network");
  return network_goldens[0];
}

/// Rounding in float32. The projection of errors that are `part` of each number, of either sign, is about as large as
/// that part of the projection of the numbers: 0.29 times the root of the sum of their squares. Some 20 layers leave
/// parts of 1e-6; batch norm over few pixels magnifies them, in training.
inline void check_close(double got, double wanted, double squares, double part) {
  const double size = 0.29 * std::sqrt(squares);
  CAPTURE(got);
  CAPTURE(wanted);
  CAPTURE(size);
  CHECK(std::abs(got - wanted) <= part * size);
}
inline double sum_of_squares(const st::Tensor<double>& x) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += x.data()[i] * x.data()[i];
  return sum;
}

/// Outputs, a training step's gradients, and what folding makes of the network.
template <class Net>
void compare(const char* name, std::int64_t h, std::int64_t w) {
  CAPTURE(name);
  Net net;
  start(net);
  const auto x = image<Net::io::in>(h, w);
  const NetworkGolden& wanted = golden(name);
  st::Infer pass;
  const auto check_inference = [&](const auto& network) {
    const auto y = st::detail::convert<double>(st::as_var(network(pass, x)).value().tensor());
    check_close(project("output", y), wanted.inferred, sum_of_squares(y), 5e-6);
  };
  check_inference(net);
  check_inference(st::fold(net));

  st::Train training({.seed = 1, .step = 0});
  const auto y = st::as_var(net(training, x));
  const auto trained = st::detail::convert<double>(y.value().tensor());
  check_close(project("output", trained), wanted.trained, sum_of_squares(trained), 5e-5);
  training.backward(st::mean(st::square(y)));
  double gradient = 0, squares = 0;
  st::for_each_parameter(net, [&](const std::string& parameter, st::Parameter& leaf) {
    const auto dw = st::detail::convert<double>(leaf.grad());
    gradient += project(parameter, dw);
    squares += sum_of_squares(dw);
  });
  check_close(gradient, wanted.gradient, squares, 5e-5);
}

}  // namespace networks_test
