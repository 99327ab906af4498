// Runs the same network on the CPU and on a device, and compares every number.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "largest.hpp"
#include "strata/strata.hpp"

namespace strata_test {

namespace st = strata;

/// Whether two tensors are equal to a part of their largest number. Both sides add in float32, in their own order: 1e-5
/// is some hundred roundings.
template <class T>
void check_close(const st::Tensor<T>& given, const st::Tensor<T>& wanted, const std::string& what, double part = 1e-5) {
  CAPTURE(what);
  const st::Tensor<T> a = given.to(st::Device::cpu()), b = wanted.to(st::Device::cpu());
  REQUIRE(a.shape() == b.shape());
  double largest = 0, off = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double(b.data()[i])));
    strata_test::keep_largest(off, std::abs(double(a.data()[i]) - double(b.data()[i])));
  }
  CHECK(off <= part * largest + 1e-12);
}
template <int C>
void check_close(const st::Image<C>& given, const st::Image<C>& wanted, const std::string& what, double part = 1e-5) {
  check_close(given.tensor(), wanted.tensor(), what, part);
}

/// Every parameter, gradient and buffer of two networks.
template <class Net>
void check_networks(Net& given, Net& wanted, double part = 1e-5) {
  std::vector<st::Parameter*> parameters;
  std::vector<st::Buffer*> buffers;
  st::for_each_parameter(wanted, [&](const std::string&, st::Parameter& p) { parameters.push_back(&p); });
  st::for_each_buffer(wanted, [&](const std::string&, st::Buffer& b) { buffers.push_back(&b); });
  std::size_t i = 0;
  st::for_each_parameter(given, [&](const std::string& name, st::Parameter& p) {
    check_close(p.value(), parameters[i]->value(), name, part);
    REQUIRE(p.has_grad() == parameters[i]->has_grad());
    if (p.has_grad()) check_close(p.grad(), parameters[i]->grad(), "gradient of " + name, part);
    ++i;
  });
  i = 0;
  st::for_each_buffer(given, [&](const std::string& name, st::Buffer& b) {
    if (b.any_value().index() == 0)
      check_close(b.value(), buffers[i]->value(), name, part);
    else
      check_close(b.template value<std::int64_t>(), buffers[i]->template value<std::int64_t>(), name, 0);
    ++i;
  });
}

template <int C>
st::Image<C> random_image(std::int64_t n, std::int64_t h, std::int64_t w, std::uint32_t stream) {
  st::Image<C> image(n, h, w);
  st::Rng rng(11, stream);
  for (float& x : image.span()) x = rng.uniform(-1, 1);
  return image;
}

/// Training passes and an inference pass of a network on n images of h x w pixels, here and on the device.
template <int C, class Net>
void compare(st::Device device, Net&& net, std::int64_t n, std::int64_t h, std::int64_t w, double part = 1e-5) {
  st::initialize(net, 5);
  std::uint32_t stream = 100;  // batch norm's weights of 1 and biases of 0 would hide mistakes
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    st::Rng rng(12, stream++);
    if (p.shape().rank() < 2)
      for (float& x : p.value().span()) x = rng.uniform(0.5f, 1.5f);
  });
  auto there = net;
  st::to(there, device);
  const st::Image<C> x = random_image<C>(n, h, w, 1);
  for (int round = 0; round < 2; ++round) {  // in the second round gradients are added
    st::Train here_pass({.seed = 3, .step = 4}), there_pass({.seed = 3, .step = 4});
    const auto here_x = here_pass.watch(x), there_x = there_pass.watch(x.to(device));
    const auto here_y = as_var(net(here_pass, here_x)), there_y = as_var(there(there_pass, there_x));
    CHECK(there_y.device() == device);
    check_close(there_y.value(), here_y.value(), "output", part);
    const auto target =
        random_image<std::remove_cvref_t<decltype(here_y)>::channels>(here_y.n(), here_y.h(), here_y.w(), 2);
    const auto here_loss = mean(square(here_y - target)), there_loss = mean(square(there_y - target.to(device)));
    CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(part));
    here_pass.backward(here_loss);
    there_pass.backward(there_loss);
    check_close(there_pass.gradient(there_x), here_pass.gradient(here_x), "gradient of the input", part);
    check_networks(there, net, part);
  }
  st::Infer pass;
  const auto& fixed = net;
  const auto& fixed_there = there;
  check_close(as_var(fixed_there(pass, x.to(device))).value(), as_var(fixed(pass, x)).value(), "inference", part);
}

}  // namespace strata_test
