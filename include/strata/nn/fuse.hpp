// Which neighbours inside a Sequential run as one step. Decided from the types, at compile time:
//
//     Conv2d, ReLU                    (and DepthwiseConv2d, ReLU) the convolution's last step is the ReLU; its output is stored once
//     BatchNorm2d, ReLU               one step
//     Conv2d(, ReLU), BatchNorm2d(, ReLU)
//                                     training: the convolution gathers the batch's statistics while it writes, and what
//                                     the batch norm gives is not computed: the next convolution normalises where it reads
//                                     (autograd/normalised_image.hpp). Back, the next convolution gathers the batch norm's
//                                     two sums, and this one completes the gradient where it reads it
//     Conv2d, BatchNorm2d(, ReLU)     inference: one convolution. Batch norm with fixed statistics is a scale and a shift
//                                     of every channel, which go into the weights and the bias
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/core/checksum.hpp"
#include "strata/math/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/relu.hpp"

namespace strata::inline STRATA_ABI::detail {

template <class M>
inline constexpr bool is_conv2d = false;
template <int In, int Out, int Kernel, Conv2dOptions Options>
inline constexpr bool is_conv2d<Conv2d<In, Out, Kernel, Options>> = true;
template <class M>
inline constexpr bool is_depthwise_conv2d = false;
template <int C, int Kernel, Conv2dOptions Options>
inline constexpr bool is_depthwise_conv2d<DepthwiseConv2d<C, Kernel, Options>> = true;
template <class M>
inline constexpr bool is_batch_norm = false;
template <int C, class Eps, class Momentum>
inline constexpr bool is_batch_norm<BatchNorm2d<C, Eps, Momentum>> = true;

/// The type at place I, or void behind the end.
template <std::size_t I, class... Ms>
constexpr auto type_at() {
  if constexpr (I < sizeof...(Ms))
    return std::type_identity<std::tuple_element_t<I, std::tuple<Ms...>>>{};
  else
    return std::type_identity<void>{};
}

/// How many layers from I on run as one step of a training or an inference pass.
template <bool Training, std::size_t I, class... Ms>
constexpr std::size_t fused_length() {
  using First = typename decltype(type_at<I, Ms...>())::type;
  using Second = typename decltype(type_at<I + 1, Ms...>())::type;
  using Third = typename decltype(type_at<I + 2, Ms...>())::type;
  using Fourth = typename decltype(type_at<I + 3, Ms...>())::type;
  if constexpr (is_conv2d<First> && is_batch_norm<Second>)
    return std::is_same_v<Third, ReLU> ? 3 : 2;
  else if constexpr (Training && is_conv2d<First> && std::is_same_v<Second, ReLU> && is_batch_norm<Third>)
    return std::is_same_v<Fourth, ReLU> ? 4 : 3;
  else if constexpr ((is_conv2d<First> || is_depthwise_conv2d<First> || is_batch_norm<First>) && std::is_same_v<Second, ReLU>)
    return 2;
  else
    return 1;
}

/// The next function on an accelerator.
template <class Conv, class Norm, class T>
Var<Conv::io::out, T> folded_on_accelerator(const Conv& conv, const Norm& norm, Infer& pass, const Var<Conv::io::in, T>& x,
                                            Activation activation) {
  if constexpr (!std::is_same_v<T, float>) {
    throw_not_float(x.device());
  } else {
    constexpr int out = Conv::io::out;
    const Tensor<float>& weight = conv.weight.value();
    Tensor<float> numbers = norm.inference_rows(), folded(weight.shape(), x.pool()), shift(Shape{out}, x.pool());
    const float* bias = nullptr;
    if constexpr (Conv::has_bias) bias = conv.bias.value().data();
    accelerator(x.device())
        .batch_norm_fold(out, weight.size() / out, weight.data(), bias, Norm::rows(numbers), folded.data(), shift.data());
    return pass.output(
        Conv::convolve(x, std::as_const(folded).data(), std::as_const(shift).data(), activation, pass.precision()));
  }
}

/// conv and norm, whose statistics are fixed, as one convolution: weights times scale, bias times scale plus shift.
template <class Conv, class Norm, class T>
auto folded_forward(const Conv& conv, const Norm& norm, Infer& pass, const Var<Conv::io::in, T>& x, Activation activation) {
  constexpr int out = Conv::io::out;
  check_same_device(x.device(), conv.weight.device(), Conv::name);
  check_same_device(x.device(), norm.weight.device(), Norm::name);
  if (on_accelerator(x.device())) return folded_on_accelerator(conv, norm, pass, x, activation);
  const Normalisation<T> numbers = norm.template inference_numbers<T>();
  const Tensor<T>& weight = conv.weight.template value<T>();
  Scratch<T> shift(out);
  for (int o = 0; o < out; ++o) {
    shift.data()[o] = numbers.shift()[o];
    if constexpr (Conv::has_bias) shift.data()[o] += conv.bias.template value<T>().data()[o] * numbers.scale()[o];
  }
  std::optional<Scratch<T>> folded;
  const auto fold = [&]() -> const T* {
    folded.emplace(std::size_t(weight.size()));
    const std::int64_t taps = weight.size() / out;
    for (int o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < taps; ++i)
        folded->data()[o * taps + i] = weight.data()[o * taps + i] * numbers.scale()[o];
    return folded->data();
  };
  const auto key = [&] { return checksum(numbers.scale(), out, checksum(weight.data(), weight.size())); };
  return Conv::infer(pass, x, conv.packed, key, fold, std::as_const(shift).data(), activation);
}

/// conv, an activation, norm and another activation in a training pass.
template <class Conv, class Norm, class T>
auto normalised_forward(Conv& conv, Norm& norm, Train& pass, const Var<Conv::io::in, T>& x, Activation between,
                        Activation behind) {
  if (on_accelerator(x.device())) return Norm::forward(norm, pass, Conv::forward(conv, pass, x, between), behind);
  Scratch<double> memory(std::size_t(2 * Conv::io::out));
  const ChannelStatistics statistics{memory.data(), memory.data() + Conv::io::out};
  const auto y = Conv::forward(conv, pass, x, between, statistics);
  return Norm::forward_with(norm, pass, y, statistics, behind, between == Activation::relu);
}

/// Runs the Length layers from I on as one step.
template <std::size_t I, std::size_t Length, class Layers, class P, int C, class T>
auto fused_forward(Layers& layers, P& pass, const Var<C, T>& x) {
  auto& first = std::get<I>(layers);
  using First = std::remove_cvref_t<decltype(first)>;
  using Second = std::tuple_element_t<I + 1, std::remove_const_t<Layers>>;
  if constexpr (First::io::in != C) {
    static_assert(sizeof(image_fits<First, C, First::io::in>) > 0);
    return Var<First::io::out, T>();
  } else if constexpr (is_batch_norm<Second>) {
    constexpr Activation behind = Length == 3 ? Activation::relu : Activation::none;
    if constexpr (P::training)
      return normalised_forward(first, std::get<I + 1>(layers), pass, x, Activation::none, behind);
    else
      return folded_forward(first, std::get<I + 1>(layers), pass, x, behind);
  } else if constexpr (Length > 2) {
    constexpr Activation behind = Length == 4 ? Activation::relu : Activation::none;
    return normalised_forward(first, std::get<I + 2>(layers), pass, x, Activation::relu, behind);
  } else {
    return First::forward(first, pass, x, Activation::relu);
  }
}

}  // namespace strata::inline STRATA_ABI::detail
