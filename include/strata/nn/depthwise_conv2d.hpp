// A depthwise 2-D convolution: each channel has a kernel of its own, as in PyTorch's nn.Conv2d with groups = channels.
//
//     st::DepthwiseConv2d<64>                                                  // 3x3, keeps the image's size, with bias
//     st::DepthwiseConv2d<64, 7, st::no_bias>
//     st::Sequential<st::DepthwiseConv2d<64>, st::Conv2d<64, 128, 1>>          // a depthwise separable convolution
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/cpu/depthwise_conv2d.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"

namespace strata::inline STRATA_ABI {

/// y[c] = bias[c] + sum over p, q of weight[c, 0, p, q] * x[c, i + p, j + q]: cross-correlation, as in PyTorch. weight has
/// shape (C, 1, Kernel, Kernel), bias (C). It runs on the CPU: DeviceError for images on an accelerator.
template <int C, int Kernel = 3, Conv2dOptions Options = Conv2dOptions{}>
class DepthwiseConv2d : public Layer<DepthwiseConv2d<C, Kernel, Options>> {
 public:
  using io = maps<C, C>;
  static constexpr Window window = detail::conv_window(Kernel, Options);
  static constexpr int kernel = Kernel, stride = Options.stride, padding = window.padding, dilation = Options.dilation, groups = C;
  static constexpr bool has_bias = Options.bias;

  static constexpr Shape weight_shape{C, 1, Kernel, Kernel};
  Parameter weight{weight_shape};
  Parameter bias{has_bias ? Shape{C} : Shape{0}};
  mutable cpu::PackedWeights packed;  ///< none: kernels read the weights as they are

  /// Starts with kaiming-normal weights, which no other layer has (nn/init.hpp); st::initialize(net, seed) draws anew.
  constexpr DepthwiseConv2d() { detail::draw_default_weights(weight); }

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    if constexpr (has_bias) f("bias", self.bias);
  }

  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) {
    t.channels(C);
    t.window(window);
    t.multiply_adds(t.extents().h * t.extents().w * C * Kernel * Kernel);
  }
  static constexpr bool takes_affine = true, takes_activation = true;
  using with_bias = DepthwiseConv2d<C, Kernel, detail::with_bias(Options)>;
  static std::string name() {
    std::string text = concat("DepthwiseConv2d(", C, ", kernel_size=", Kernel);
    if (stride != 1) text += concat(", stride=", stride);
    if (padding != 0) text += concat(", padding=", padding);
    if (dilation != 1) text += concat(", dilation=", dilation);
    return text + concat(", groups=", C) + (has_bias ? ")" : ", bias=False)");
  }

  /// The image that `weight` (C, KH, KW in memory) and `bias` (or nullptr) make of x.
  template <class T>
  static Image<C, T> convolve(const Var<C, T>& x, const T* weight, const T* bias, Activation activation) {
    const DepthwiseConv2dProblem problem = problem_for(x);
    Image<C, T> image(problem.n, problem.out_h(), problem.out_w());
    cpu::depthwise_conv2d_forward<T>(problem, x.data(), weight, bias, image.data(), activation);
    return image;
  }

  static auto onnx(auto& self, const auto& x) { return detail::onnx_convolution<DepthwiseConv2d>(self, x, groups); }

  /// What it takes of memory where it is never trained.
  static LayerMemory inference_memory(const Shape&) { return {}; }
  /// Of x with other weights: see Conv2d.
  template <class T, class Key, class Weights>
  static Var<C, T> infer(Infer& pass, const Var<C, T>& x, cpu::PackedWeights&, Key&&, Weights&& weights, const T* biases,
                         Activation activation) {
    check_on_cpu(x.device(), x.device(), name);
    return pass.output(convolve(x, weights(), biases, activation));
  }

  static constexpr Bands bands{.possible = stride == 1};
  static constexpr std::int64_t band_weight_bytes = std::int64_t{sizeof(float)} * Kernel * Kernel * C;
  static void convolve_padded(const Image<C>& x, cpu::PackedWeights&, const float* weight, const float* bias, Activation activation,
                              Image<C>& y) {
    const DepthwiseConv2dProblem problem{.n = 1, .h = y.h() + window.reach() - 1, .w = x.w(), .channels = C, .kernel = Kernel, .stride = 1,
                                         .padding = 0, .dilation = dilation};
    cpu::depthwise_conv2d_forward<float>(problem, x.data(), weight, bias, y.data(), activation);
  }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<C, T> x, Activation activation = Activation::none) {
    check_on_cpu(x.device(), self.weight.device(), name);
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = nullptr;
    if constexpr (has_bias) bias = std::as_const(self.bias).template value<T>().data();
    auto y = pass.output(convolve(x, weight, bias, activation));
    if constexpr (P::training) {
      const Image<C, T> rectified = activation == Activation::relu ? y.value() : Image<C, T>();
      pass.tape()->record(y.id(), [&self, problem = problem_for(x), x, id = y.id(), kept = rectified](Tape& tape) {
        T* dy = tape.gradient<T>(id);
        if (kept.size() != 0) cpu::relu_backward(kept.size(), kept.data(), dy, dy, false);
        using Targets = detail::ConvGradientTargets<T>;
        Parameter* const bias_leaf = has_bias ? &self.bias : nullptr;
        if (self.weight.requires_grad || Targets::wants(bias_leaf)) {
          const Targets to(self.weight, bias_leaf);
          cpu::depthwise_conv2d_backward_weight<T>(problem, x.data(), dy, to.weight, to.bias, to.accumulate);
        }
        if (const auto dx = tape.target<T>(x.id()))
          cpu::depthwise_conv2d_backward_input<T>(problem, dy, std::as_const(self.weight).template value<T>().data(), dx.data,
                                                  dx.accumulate);
      }, x, rectified, self.weight, self.bias);
    }
    return y;
  }

 private:
  template <class T>
  static DepthwiseConv2dProblem problem_for(const Var<C, T>& x) {
    constexpr int reach = dilation * (Kernel - 1) + 1;
    if (x.n() < 1 || x.h() + 2 * padding < reach || x.w() + 2 * padding < reach)
      throw ShapeError(concat(name(), ": an image of ", x.h(), " x ", x.w(), " pixels (batch of ", x.n(),
                              ") is too small: padded, it must reach ", reach, " x ", reach));
    return {.n = x.n(), .h = x.h(), .w = x.w(), .channels = C, .kernel = Kernel, .stride = stride, .padding = padding,
            .dilation = dilation};
  }

  static_assert(C > 0, "strata::DepthwiseConv2d<C, Kernel>: the channel count must be positive");
  static_assert(Kernel > 0, "strata::DepthwiseConv2d<C, Kernel>: Kernel must be positive");
  static_assert(Options.stride > 0 && Options.dilation > 0, "strata::DepthwiseConv2d: stride and dilation must be positive");
  static_assert(Options.padding >= 0 || Options.padding == Conv2dOptions::same,
                "strata::DepthwiseConv2d: padding must be 0 or more, or Conv2dOptions::same");
  static_assert(Kernel <= 0 || Options.padding >= 0 || (Options.dilation * (Kernel - 1)) % 2 == 0,
                "strata::DepthwiseConv2d<C, Kernel>: an even Kernel cannot keep the image's size: give a padding");
};

}  // namespace strata::inline STRATA_ABI
