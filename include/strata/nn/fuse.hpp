// Which neighbours inside a Sequential run as one step. Decided from the types, at compile time:
//
//     Conv2d, ReLU          the convolution's last step is the ReLU; its output is stored once
//     BatchNorm2d, ReLU     one pass over memory forward, one back, and no activation between them
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/math/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"

namespace strata::inline STRATA_ABI::detail {

/// A layer whose forward takes an Activation as its last argument.
template <class M>
inline constexpr bool takes_activation = false;
template <int In, int Out, int Kernel, Conv2dOptions Options>
inline constexpr bool takes_activation<Conv2d<In, Out, Kernel, Options>> = true;
template <int C, class Eps, class Momentum>
inline constexpr bool takes_activation<BatchNorm2d<C, Eps, Momentum>> = true;

/// How many layers from I on run as one step.
template <std::size_t I, class... Ms>
constexpr std::size_t fused_length() {
  if constexpr (I + 1 < sizeof...(Ms)) {
    using First = std::tuple_element_t<I, std::tuple<Ms...>>;
    using Second = std::tuple_element_t<I + 1, std::tuple<Ms...>>;
    if constexpr (takes_activation<First> && std::is_same_v<Second, ReLU>) return 2;
  }
  return 1;
}

template <std::size_t I, std::size_t Length, class Layers, class P, class X>
auto fused_forward(Layers& layers, P& pass, const X& x) {
  static_assert(Length == 2);
  auto& first = std::get<I>(layers);
  using First = std::remove_cvref_t<decltype(first)>;
  if constexpr (First::io::in != X::channels) {
    static_assert(sizeof(image_fits<First, X::channels, First::io::in>) > 0);
    return Var<First::io::out, typename X::value_type>();
  } else {
    return First::forward(first, pass, x, Activation::relu);
  }
}

}  // namespace strata::inline STRATA_ABI::detail
