// Operators against PyTorch's, forward and backward, in float and double. tests/golden/operators.py makes the golden
// file.
//
//     check<st::MaxPool2d<3, 2, 1>, 3>("max_pool_resnet");                     // a layer on images of 3 channels
//     check<3>("crop", [](auto& pass, const auto& x) { return st::crop(pass, x, ...); });    // a function
//     check<3, 2>("cat", [](auto& pass, const auto& x, const auto& y) { ... });              // of two images
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "nn/golden_file.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/module.hpp"
#include "test_data.hpp"

namespace operators {

namespace st = strata;

/// The file of an operator: convolutions have one of their own, which tests/golden/convolutions.py makes.
inline auto path_of(const std::string& name) {
  return strata_test::golden(name.starts_with("convolution_") ? "golden/convolutions.safetensors"
                                                              : "golden/operators.safetensors");
}

template <class T>
st::Tensor<T> golden(const std::string& name) {
  return strata_test::golden_tensor<T>(path_of(name), name);
}
template <class T>
void compare(const std::string& name, const st::Shape& shape, const T* got) {
  strata_test::compare_with_golden(path_of(name), name, shape, got);
}

/// f(pass, images...) with the images of the golden file, which may have one number for each image and channel.
template <class T, class F, int... C>
void check_as(const std::string& name, F&& f, std::integer_sequence<int, C...>) {
  const auto suffix = [](std::size_t i) { return i == 0 ? std::string() : std::to_string(i + 1); };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const std::tuple images{st::Image<C, T>(golden<T>(name + ".x" + suffix(I)))...};
    {
      st::Infer infer;
      const auto y = st::as_var(f(infer, std::get<I>(images)...));
      compare(name + ".infer", y.shape(), y.data());
    }
    st::Train pass;
    const std::tuple watched{pass.watch(std::get<I>(images))...};
    const auto y = st::as_var(f(pass, std::get<I>(watched)...));
    compare(name + ".y", y.shape(), y.data());
    pass.backward(sum(y * std::remove_cvref_t<decltype(y.value())>(golden<T>(name + ".gy"))));
    const auto check_gradient = [&](const auto& x, const std::string& which) {
      const auto gx = pass.gradient(x);
      compare(name + ".gx" + which, gx.shape(), gx.data());
    };
    (check_gradient(std::get<I>(watched), suffix(I)), ...);
  }(std::make_index_sequence<sizeof...(C)>());
}
template <class T, class Net, int... C>
void check_net_as(const std::string& name) {
  Net net;
  if constexpr (st::detail::holds_state<Net>) {
    st::load_weights(path_of(name), net, {.prefix = name + ".state."});
    st::to<T>(net);
  }
  const auto run = [&]<class P>(P& pass, const auto&... x) {
    if constexpr (P::training)
      return net(pass, x...);
    else
      return std::as_const(net)(pass, x...);
  };
  check_as<T>(name, run, std::integer_sequence<int, C...>());
  st::for_each_parameter(net, [&](const std::string& key, st::Parameter& parameter) {
    compare(name + ".grad." + key, parameter.shape(), parameter.grad<T>().data());
  });
}

template <int... C, class F>
void check(const std::string& name, F&& f) {
  CAPTURE(name);
  check_as<float>(name, f, std::integer_sequence<int, C...>());
  check_as<double>(name, f, std::integer_sequence<int, C...>());
}
template <class Net, int... C>
void check(const std::string& name) {
  CAPTURE(name);
  check_net_as<float, Net, C...>(name);
  check_net_as<double, Net, C...>(name);
}

}  // namespace operators
