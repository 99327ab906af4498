// The layers of a folded network: what is left of convolution, batch norm and ReLU when nothing is trained any more.
// They hold plain buffers, no gradients, and take an Infer pass only.
//
//     st::Folded<st::Conv2d<64, 64>, st::Activation::relu>
//
// Nobody needs to write them: deploy_t<Net> does (deploy/fold.hpp).
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "strata/nn/conv2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

template <class P>
constexpr bool inference_only() {
  static_assert(!P::training, "strata: a folded network is for st::Infer alone: train the network it was folded from");
  return true;
}
inline const char* activation_text(Activation activation) { return activation == Activation::relu ? ", relu" : ""; }

}  // namespace detail

/// activation(convolution + bias): a convolution with the batch norms and the activation behind it.
template <class Conv, Activation Act>
class Folded : public Layer<Folded<Conv, Act>> {
 public:
  using io = typename Conv::io;
  static constexpr bool has_bias = Conv::has_bias;
  static constexpr Activation ends_with = Act;

  Buffer weight{Conv::weight_shape};
  Buffer bias{has_bias ? Shape{io::out} : Shape{0}};
  mutable cpu::PackedWeights packed;

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    if constexpr (has_bias) f("bias", self.bias);
  }
  static constexpr bool is_leaf_layer = true, has_fixed_weights = true;
  static constexpr void trace(auto& t) { Conv::trace(t); }
  static LayerMemory memory(const Shape& x) { return Conv::inference_memory(x); }
  static std::string name() { return concat("Folded", Conv::name(), detail::activation_text(Act)); }

  template <Pass P>
  static auto forward(auto& self, P& pass, const Var<io::in>& x) {
    static_assert(detail::inference_only<P>());
    check_same_device(x.device(), self.weight.device(), name);
    const float* bias_data = nullptr;
    if constexpr (has_bias) bias_data = self.bias.template value<float>().data();
    const Tensor<float>& values = std::as_const(self.weight).template value<float>();
    return Conv::infer(pass, x, self.packed, [&] { return checksum(values.data(), values.size()); },
                       [&] { return values.data(); }, bias_data, Act);
  }
  static auto onnx(auto& self, const auto& x) {
    const auto y = Conv::onnx(self, x);
    if constexpr (Act == Activation::relu)
      return y.template node<io::out>("Relu");
    else
      return y;
  }

  static constexpr Window window = Conv::window;
  static constexpr Bands bands = Conv::bands;
  static constexpr std::int64_t band_weight_bytes = Conv::band_weight_bytes;
  static void convolve_padded(const Image<io::in>& x, cpu::PackedWeights& cache, const float* weights,
                              const float* biases, Activation, Image<io::out>& y) {
    Conv::convolve_padded(x, cache, weights, biases, Act, y);
  }
};
template <int In, int Out, int Kernel, Conv2dOptions Options, Activation Act>
using FoldedConv2d = Folded<Conv2d<In, Out, Kernel, Options>, Act>;
template <int C, int Kernel, Conv2dOptions Options, Activation Act>
using FoldedDepthwiseConv2d = Folded<DepthwiseConv2d<C, Kernel, Options>, Act>;

/// activation(scale * x + shift), for a batch norm that no convolution stands before.
template <int Channels, Activation Act>
class ChannelScale : public Layer<ChannelScale<Channels, Act>> {
 public:
  using io = maps<Channels, Channels>;
  Buffer scale{Shape{Channels}, 1.0f};
  Buffer shift{Shape{Channels}};

  static constexpr void visit(auto& self, auto&& f) {
    f("scale", self.scale);
    f("shift", self.shift);
  }
  static constexpr bool is_leaf_layer = true;
  static constexpr bool has_fixed_weights = true;
  static constexpr void trace(auto&) {}
  static std::string name() { return concat("ChannelScale(", Channels, detail::activation_text(Act), ")"); }

  template <Pass P>
  static auto forward(auto& self, P& pass, const Var<Channels>& x) {
    static_assert(detail::inference_only<P>());
    check_same_device(x.device(), self.scale.device(), name);
    const float* scale = std::as_const(self.scale).template value<float>().data();
    const float* shift = std::as_const(self.shift).template value<float>().data();
    Image<Channels> y(x.n(), x.h(), x.w(), x.pool());
    const std::int64_t pixels = x.size() / Channels;
    detail::dispatch<float>(
        x.device(),
        [&] {
          parallel_ranges(pixels, 1024, [&](std::int64_t begin, std::int64_t end) {
            const float* from = x.data() + begin * Channels;
            float* to = y.data() + begin * Channels;
            for (std::int64_t i = begin; i < end; ++i, from += Channels, to += Channels)
              for (int c = 0; c < Channels; ++c) {
                const float value = from[c] * scale[c] + shift[c];
                to[c] = Act == Activation::relu && value < 0 ? 0.0f : value;
              }
          });
        },
        [&](auto& gpu) {
          // The device's rows are never written here, and have no const of their own.
          gpu.batch_norm_apply(pixels, Channels, x.data(), {const_cast<float*>(scale), const_cast<float*>(shift)},
                               y.data(), Act);
        });
    return pass.output(std::move(y));
  }
  static auto onnx(auto& self, const auto& x) {
    constexpr std::int64_t wide = Channels;
    const auto y = x.as_image().template node<Channels>("Mul", {x.tensor(self.scale, {wide, 1, 1})})
                       .template node<Channels>("Add", {x.tensor(self.shift, {wide, 1, 1})});
    if constexpr (Act == Activation::relu)
      return y.template node<Channels>("Relu");
    else
      return y;
  }
};

/// y = x: what is left of a network in which nothing happens at inference, as one of Dropout alone.
class Identity : public Layer<Identity> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static constexpr bool idle_in_inference = true;
  static std::string name() { return "Identity()"; }

  template <Pass P, int C, class T>
  static auto forward(auto&, P&, const Var<C, T>& x) {
    return x;
  }
};

}}  // namespace strata::STRATA_ABI
