// Which neighbours inside a Sequential run as one step. Decided from what the layers say of themselves
// (nn/protocol.hpp), at compile time, by one rule for training, for inference and for deploy/fold.hpp:
//
//     layer, activation
//         The layer's last step is the activation; its output is stored once.
//     layer(, activation), normalisation(, activation), in training
//         The layer, a convolution, gathers the batch's statistics while it writes, and what the normalisation gives is
//         not computed: the next convolution normalises where it reads (autograd/normalised_image.hpp). Back, the next
//         convolution gathers the two sums of the normalisation's gradient, and this one completes the gradient where
//         it reads it.
//     layer, affine layers(, activation), in inference
//         One layer. A batch norm with fixed statistics is a scale and a shift of every channel, which go into the
//         convolution's weights and bias, or into another one's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/core/checksum.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/nn/module.hpp"
#include "strata/nn/protocol.hpp"

namespace strata::inline STRATA_ABI::detail {

/// What the rule asks of a layer.
struct Fusible {
  bool takes_activation = false, is_affine = false, takes_affine = false, gathers_statistics = false,
       takes_statistics = false;
  Activation activation = Activation::none;  ///< it is nothing else
};
template <class M>
constexpr Fusible fusible() {
  Fusible asked{.takes_activation = TakesActivation<M>, .is_affine = Affine<M>, .takes_affine = TakesAffine<M>,
                .gathers_statistics = GathersStatistics<M>, .takes_statistics = TakesStatistics<M>};
  if constexpr (ActivationLayer<M>) asked.activation = M::activation;
  return asked;
}

/// Neighbours that run as one step: a layer, perhaps an activation, layers that are affine, perhaps an activation.
struct FusedRun {
  std::size_t length = 1, affines = 0;
  Activation between = Activation::none, behind = Activation::none;
};

/// The rule: what runs as one step with the layer `first` of `count`.
constexpr FusedRun fused_run(const Fusible* layers, std::size_t count, std::size_t first, bool training) {
  const auto at = [&](std::size_t i) { return i < count ? layers[i] : Fusible{}; };
  const Fusible head = at(first);
  FusedRun run;
  std::size_t next = first + 1;
  bool takes_activation = head.takes_activation;
  if (training && head.gathers_statistics) {
    const bool rectified = head.takes_activation && at(next).activation == Activation::relu;
    if (const std::size_t norm = next + rectified; at(norm).takes_statistics) {
      run.affines = 1;
      if (rectified) run.between = Activation::relu;
      takes_activation = at(norm).takes_activation;
      next = norm + 1;
    }
  } else if (!training && (head.takes_affine || head.is_affine)) {
    for (; at(next).is_affine; ++next) ++run.affines;
  }
  if (takes_activation && at(next).activation != Activation::none) run.behind = at(next++).activation;
  run.length = next - first;
  return run;
}

/// For each layer of a list, what runs as one step with it if it is the first.
template <bool Training, class... Ms>
inline constexpr auto fused_runs = [] {
  constexpr std::size_t count = sizeof...(Ms);
  constexpr Fusible layers[count + 1] = {fusible<Ms>()..., Fusible{}};
  std::array<FusedRun, count + 1> runs;
  for (std::size_t i = 0; i < count; ++i) runs[i] = fused_run(layers, count, i, Training);
  return runs;
}();

/// How many layers from I on run as one step of a training or an inference pass.
template <bool Training, std::size_t I, class... Ms>
constexpr std::size_t fused_length() {
  return fused_runs<Training, Ms...>[I].length;
}

/// Calls f(c, scale, shift) for each channel: what affine layers, one after another, make of it.
template <class F, class... Affines>
void each_scale(int channels, F&& f, const Affines&... of_channel) {
  for (int c = 0; c < channels; ++c) {
    ScaleShift all;
    [[maybe_unused]] const auto join = [&](const ScaleShift& next) {
      all = {all.scale * next.scale, all.shift * next.scale + next.shift};
    };
    (join(of_channel(c)), ...);
    f(c, all.scale, all.shift);
  }
}

/// The next function on an accelerator: its kernel folds one norm at a time.
template <class Conv, class T, class... Norms>
Var<Conv::io::out, T> folded_on_accelerator(const Conv& conv, Infer& pass, const Var<Conv::io::in, T>& x,
                                            Activation activation, const Norms&... norms) {
  if constexpr (!std::is_same_v<T, float>) {
    throw_not_float(x.device());
  } else {
    constexpr int out = Conv::io::out;
    Tensor<float> weight = conv.weight.value();
    Tensor<float> bias;
    const float* biases = nullptr;
    if constexpr (Conv::has_bias) biases = conv.bias.value().data();
    const auto fold = [&](const auto& norm) {
      Tensor<float> numbers = norm.affine_rows(norm, x.device()), folded(weight.shape(), x.pool()),
                    shift(Shape{out}, x.pool());
      accelerator(x.device())
          .batch_norm_fold(out, weight.size() / out, std::as_const(weight).data(), biases, normalisation_rows(numbers),
                           folded.data(), shift.data());
      weight = std::move(folded), bias = std::move(shift);
      biases = std::as_const(bias).data();
    };
    (fold(norms), ...);
    return Conv::infer(
        pass, x, conv.packed, [] { return std::uint64_t{0}; }, [&] { return std::as_const(weight).data(); }, biases,
        activation);
  }
}

/// conv and norms, whose statistics are fixed, as one convolution: weights times scale, bias times scale plus shift.
template <class Conv, class T, class... Norms>
  requires TakesAffine<Conv>
Var<Conv::io::out, T> scaled_forward(const Conv& conv, Infer& pass, const Var<Conv::io::in, T>& x,
                                     Activation activation, const Norms&... norms) {
  constexpr int out = Conv::io::out;
  check_same_device(x.device(), conv.weight.device(), Conv::name);
  if (on_accelerator(x.device())) return folded_on_accelerator(conv, pass, x, activation, norms...);
  Scratch<T> scale(out), shift(out);
  each_scale(out, [&](int o, double by, double add) { scale.data()[o] = T(by), shift.data()[o] = T(add); },
             norms.template affine<T>(norms, x.device())...);
  const Tensor<T>& weight = conv.weight.template value<T>();
  if constexpr (Conv::has_bias)
    for (int o = 0; o < out; ++o) shift.data()[o] += conv.bias.template value<T>().data()[o] * scale.data()[o];
  std::optional<Scratch<T>> folded;
  const auto fold = [&]() -> const T* {
    folded.emplace(std::size_t(weight.size()));
    const std::int64_t taps = weight.size() / out;
    for (int o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < taps; ++i)
        folded->data()[o * taps + i] = weight.data()[o * taps + i] * scale.data()[o];
    return folded->data();
  };
  const auto key = [&] { return checksum(std::as_const(scale).data(), out, checksum(weight.data(), weight.size())); };
  return Conv::infer(pass, x, conv.packed, key, fold, std::as_const(shift).data(), activation);
}

/// Affine layers, one after another, that no convolution takes.
template <class First, int C, class T, class Second, class... Norms>
Var<C, T> one_by_one(Infer& pass, const Var<C, T>& x, Activation activation, const First& first, const Second& second,
                     const Norms&... norms) {
  const Var<C, T> y = First::forward(first, pass, x);
  if constexpr (sizeof...(Norms) == 0)
    return Second::forward(second, pass, y, activation);
  else
    return one_by_one(pass, y, activation, second, norms...);
}
template <class First, int C, class T, class... Norms>
  requires(!TakesAffine<First>)
Var<C, T> scaled_forward(const First& first, Infer& pass, const Var<C, T>& x, Activation activation,
                         const Norms&... norms) {
  if (on_accelerator(x.device())) return one_by_one(pass, x, activation, first, norms...);
  Scratch<T> scale(C), shift(C);
  each_scale(C, [&](int c, double by, double add) { scale.data()[c] = T(by), shift.data()[c] = T(add); },
             first.template affine<T>(first, x.device()), norms.template affine<T>(norms, x.device())...);
  Image<C, T> image(x.n(), x.h(), x.w());
  cpu::batch_norm_apply(x.size() / C, C, x.data(), scale.data(), shift.data(), image.data(), activation);
  return pass.output(std::move(image));
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

/// Runs the layers from I on that `Run` says as one step.
template <std::size_t I, FusedRun Run, class Layers, class P, int C, class T>
auto fused_forward(Layers& layers, P& pass, const Var<C, T>& x) {
  auto& first = std::get<I>(layers);
  using First = std::remove_cvref_t<decltype(first)>;
  if constexpr (First::io::in != C) {
    static_assert(sizeof(image_fits<First, C, First::io::in>) > 0);
    return Var<First::io::out, T>();
  } else if constexpr (Run.affines == 0) {
    return First::forward(first, pass, x, Run.behind);
  } else if constexpr (P::training) {
    constexpr std::size_t norm = I + 1 + (Run.between != Activation::none);
    return normalised_forward(first, std::get<norm>(layers), pass, x, Run.between, Run.behind);
  } else {
    return [&]<std::size_t... K>(std::index_sequence<K...>) {
      return scaled_forward(first, pass, x, Run.behind, std::get<I + 1 + K>(layers)...);
    }(std::make_index_sequence<Run.affines>{});
  }
}

}  // namespace strata::inline STRATA_ABI::detail
