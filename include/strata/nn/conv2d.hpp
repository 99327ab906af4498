// A 2-D convolution.
//
//     st::Conv2d<3, 64>                                     // 3x3, keeps the image's size, with bias
//     st::Conv2d<64, 64, 3, st::no_bias>
//     st::Conv2d<64, 128, 5, st::Conv2dOptions{.stride = 2, .padding = 2}>
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/core/checksum.hpp"
#include "strata/cpu/conv2d.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata::inline STRATA_ABI {

/// The compile-time options of a convolution. Padding is with zeros and the same on all sides; `same` keeps the size of
/// the image at stride 1.
struct Conv2dOptions {
  static constexpr int same = -1;
  int stride = 1;
  int padding = same;
  int dilation = 1;
  bool bias = true;
};
inline constexpr Conv2dOptions no_bias{.bias = false};

namespace detail {

constexpr Window conv_window(int kernel, const Conv2dOptions& options) {
  return {.kernel = kernel, .stride = options.stride,
          .padding = options.padding >= 0 ? options.padding : options.dilation * (kernel - 1) / 2, .dilation = options.dilation};
}
constexpr Conv2dOptions with_bias(Conv2dOptions options) {
  options.bias = true;
  return options;
}

/// A convolution with these weights as an ONNX node.
template <class Conv>
auto onnx_convolution(const auto& weights, const auto& x, int groups = 1) {
  constexpr Window window = Conv::window;
  const auto two = [](int number) { return std::vector<std::int64_t>{number, number}; };
  std::vector<std::string> tensors{x.tensor(weights.weight)};
  if constexpr (Conv::has_bias) tensors.push_back(x.tensor(weights.bias));
  typename std::remove_cvref_t<decltype(x)>::Attributes attributes{{"kernel_shape", two(window.kernel)},
                                                                  {"strides", two(window.stride)},
                                                                  {"pads", std::vector<std::int64_t>(4, window.padding)},
                                                                  {"dilations", two(window.dilation)}};
  if (groups > 1) attributes.push_back({"group", std::int64_t{groups}});
  if constexpr (window.keeps_size())
    return x.as_image().template node<Conv::io::out>("Conv", std::move(tensors), std::move(attributes));
  else
    return x.as_image().template node_of_other_size<Conv::io::out>("Conv", std::move(tensors), std::move(attributes));
}

/// The same on an accelerator.
inline void conv_parameter_gradients(Accelerator& gpu, const Conv2dProblem& problem, Parameter& weight, Parameter* bias, const float* x,
                                     const float* dy, Precision precision) {
  const GradientTarget dweight = gradient_target(weight), dbias = bias != nullptr ? gradient_target(*bias) : GradientTarget{};
  if (dweight || dbias) gpu.conv2d_backward_weight(problem, x, dy, dweight, dbias, precision);
}

/// Where the gradients of a convolution's weight and bias (nullptr: none) go, for kernels that give the first always and add to
/// both or to neither.
template <class T>
class ConvGradientTargets {
 public:
  ConvGradientTargets(Parameter& weight_leaf, Parameter* bias_leaf) {
    if (!weight_leaf.requires_grad) unused_ = Parameter(weight_leaf.shape());
    const auto dw = (weight_leaf.requires_grad ? weight_leaf : unused_).grad_target<T>();
    Parameter::GradTarget<T> db{nullptr, dw.accumulate};
    if (wants(bias_leaf)) db = bias_leaf->grad_target<T>();
    // Where one begins anew it does so from zeros, so that both add.
    if (dw.accumulate && !db.accumulate) std::fill_n(db.data, bias_leaf->size(), T(0));
    if (!dw.accumulate && db.accumulate) std::fill_n(dw.data, weight_leaf.size(), T(0));
    weight = dw.data, bias = db.data, accumulate = dw.accumulate || db.accumulate;
  }
  static bool wants(const Parameter* leaf) { return leaf != nullptr && leaf->requires_grad; }

  T *weight = nullptr, *bias = nullptr;  ///< bias: nullptr where it wants no gradient
  bool accumulate = false;

 private:
  Parameter unused_;  // takes the weight's where it wants none
};

/// dweight and dbias (+)= ..., for those of the two that want one. dy is completed as the fusion says.
template <class T>
void conv_parameter_gradients(Device device, const Conv2dProblem& problem, Parameter& weight, Parameter* bias, const T* x, T* dy,
                              Precision precision, const cpu::Conv2dBackwardFusion<T>& fusion = {}) {
  if (on_accelerator(device))
    return dispatch<T>(device, [] {}, [&](auto& gpu) { conv_parameter_gradients(gpu, problem, weight, bias, x, dy, precision); });
  if (!weight.requires_grad && !ConvGradientTargets<T>::wants(bias)) {
    if (fusion.output)
      cpu::batch_norm_backward_input(problem.output_size() / problem.out, problem.out, fusion.output, dy, dy, false);
    return;
  }
  const ConvGradientTargets<T> to(weight, bias);
  cpu::conv2d_backward_weight<T>(problem, x, dy, to.weight, to.bias, to.accumulate, fusion);
}

}  // namespace detail

/// y[o] = bias[o] + sum over c, p, q of weight[o, c, p, q] * x[c, i + p, j + q]: cross-correlation, as in PyTorch.
/// weight has shape (Out, In, Kernel, Kernel), bias (Out).
template <int In, int Out, int Kernel = 3, Conv2dOptions Options = Conv2dOptions{}>
class Conv2d : public Layer<Conv2d<In, Out, Kernel, Options>> {
 public:
  using io = maps<In, Out>;
  static constexpr Window window = detail::conv_window(Kernel, Options);
  static constexpr int kernel = Kernel, stride = Options.stride, padding = window.padding, dilation = Options.dilation;
  static constexpr bool has_bias = Options.bias;

  static constexpr Shape weight_shape{Out, In, Kernel, Kernel};
  Parameter weight{weight_shape};
  Parameter bias{has_bias ? Shape{Out} : Shape{0}};
  mutable cpu::PackedWeights packed;  ///< for Infer passes

  /// Starts with kaiming-normal weights, which no other layer has (nn/init.hpp); st::initialize(net, seed) draws anew.
  constexpr Conv2d() { detail::draw_default_weights(weight); }

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    if constexpr (has_bias) f("bias", self.bias);
  }

  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) {
    const Extents x = t.extents();
    t.channels(Out);
    t.window(window, cpu::conv2d_rows_together(problem_for(1, x.h, x.w)));
    t.multiply_adds(t.extents().h * t.extents().w * Out * In * Kernel * Kernel);
  }
  static LayerMemory memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n(), x.h(), x.w());
    return {.forward = cpu::conv2d_forward_workspace(p, true), .weight_gradient = cpu::conv2d_weight_workspace(p),
            .input_gradient = cpu::conv2d_input_workspace(p), .packed = cpu::conv2d_packed_bytes(p),
            .reads_unnormalised = true, .normalises_a_copy = !cpu::conv2d_normalises_on_load(p)};
  }
  static constexpr bool takes_affine = true, takes_activation = true, gathers_statistics = true;
  using with_bias = Conv2d<In, Out, Kernel, detail::with_bias(Options)>;
  static std::string name() {
    std::string text = concat("Conv2d(", In, ", ", Out, ", kernel_size=", Kernel);
    if (stride != 1) text += concat(", stride=", stride);
    if (padding != 0) text += concat(", padding=", padding);
    if (dilation != 1) text += concat(", dilation=", dilation);
    return text + (has_bias ? ")" : ", bias=False)");
  }

  static auto onnx(auto& self, const auto& x) { return detail::onnx_convolution<Conv2d>(self, x); }

  /// Of a layer that is never trained.
  static LayerMemory inference_memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n(), x.h(), x.w());
    return {.forward = cpu::conv2d_forward_workspace(p, true), .packed = cpu::conv2d_packed_bytes(p)};
  }

  /// The image that `weight` (O, KH, KW, I in memory) and `bias` (or nullptr) make of x. Statistics of it on request.
  template <class T>
  static Image<Out, T> convolve(const Var<In, T>& x, const T* weight, const T* bias, Activation activation, Precision precision,
                                const ChannelStatistics& statistics = {}) {
    const Conv2dProblem problem = problem_for(x);
    Image<Out, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    backend::conv2d_forward<T>(x.device(), problem, source(x), weight, bias, image.data(), activation, precision,
                               {affine(x), statistics});
    return image;
  }

  /// `statistics` are those of the result, for a batch norm behind the layer. It then leaves the gradient of a ReLU to that.
  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<In, T> x, Activation activation = Activation::none,
                      const ChannelStatistics& statistics = {}) {
    check_same_device(x.device(), self.weight.device(), name);
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = nullptr;
    if constexpr (has_bias) bias = std::as_const(self.bias).template value<T>().data();
    if constexpr (!P::training) {
      constexpr std::int64_t size = std::int64_t{Out} * In * Kernel * Kernel;
      return infer(pass, x, self.packed, [=] { return checksum(weight, size); }, [=] { return weight; }, bias, activation);
    } else {
      auto y = pass.output(convolve(x, weight, bias, activation, pass.precision(), statistics));
      const bool rectify = activation == Activation::relu && !statistics;
      const Image<Out, T> rectified = rectify ? y.value() : Image<Out, T>();
      pass.tape()->record(y.id(), [&self, problem = problem_for(x), x, id = y.id(), kept = rectified,
                                   precision = pass.precision()](Tape& tape) {
        const auto pending = kept.size() == 0 ? tape.take<PendingNormGradient<Out, T>>(id) : nullptr;
        T* dy = tape.gradient<T>(id);
        const Device device = x.device();
        if (kept.size() != 0) backend::relu_backward(device, kept.size(), kept.data(), dy, dy, false);
        detail::conv_parameter_gradients<T>(
            device, problem, self.weight, has_bias ? &self.bias : nullptr, source(x), dy, precision,
            {affine(x), pending != nullptr ? pending->parameters() : NormGradient<T>{}});
        if (const auto dx = tape.target<T>(x.id()))
          backend::conv2d_backward_input<T>(device, problem, dy, std::as_const(self.weight).template value<T>().data(), dx.data,
                                            dx.accumulate, precision, dx.accumulate ? NormGradientSums<T>{} : sums(tape, x));
      }, x, rectified, self.weight, self.bias);
      return y;
    }
  }

  /// The convolution of x with the weights that weights() gives and `biases` (or nullptr). The form that the CPU's kernels
  /// read is kept in `cache` under key(), a checksum of what the weights come from.
  template <class T, class Key, class Weights>
  static Var<Out, T> infer(Infer& pass, const Var<In, T>& x, cpu::PackedWeights& cache, Key&& key, Weights&& weights,
                           const T* biases, Activation activation) {
    const Conv2dProblem problem = problem_for(x);
    Image<Out, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    backend::conv2d_forward_cached<T>(x.device(), problem, x.data(), cache, key, weights, biases, image.data(), activation,
                                      pass.precision());
    return pass.output(std::move(image));
  }

  /// Winograd's tiles lie at the same rows in a band as in the whole image, and it takes two of them for the kernel to be the same.
  static constexpr Bands bands{.possible = stride == 1, .together = cpu::winograd::step * dilation,
                               .least = std::max<std::int64_t>(2 * cpu::winograd::step * dilation, window.reach())};
  /// The form of the weights that kernels read, in bytes.
  static constexpr std::int64_t band_weight_bytes =
      std::int64_t{sizeof(float)} * cpu::winograd::planes * cpu::winograd::FilterParts(Kernel).count * In * Out;
  /// y from a band with its padding written out, by weights that stay as they are for as long as `cache` does.
  static void convolve_padded(const Image<In>& x, cpu::PackedWeights& cache, const float* weight, const float* bias, Activation activation,
                              Image<Out>& y) {
    const Conv2dProblem problem{.n = 1, .h = y.h() + window.reach() - 1, .w = x.w(), .in = In, .out = Out, .kernel = Kernel, .stride = 1,
                                .padding = 0, .dilation = dilation};
    cpu::conv2d_forward_cached<float>(problem, x.data(), cache, /*key=*/1, [&] { return weight; }, bias, y.data(), activation);
  }

 private:
  // A value that is still to be normalised is normalised where it is read.
  template <class T>
  static const T* source(const Var<In, T>& x) {
    return x.normalised() != nullptr ? x.normalised()->input().data() : x.data();
  }
  template <class T>
  static ChannelAffine<T> affine(const Var<In, T>& x) {
    return x.normalised() != nullptr ? x.normalised()->affine() : ChannelAffine<T>{};
  }
  template <class T>
  static NormGradientSums<T> sums(Tape& tape, const Var<In, T>& x) {
    const auto* normalised = x.normalised();
    if (normalised == nullptr) return {};
    using Sums = GatheredSums<In>;
    const auto gathered = std::allocate_shared<Sums>(PoolAllocator<Sums>());
    tape.attach(x.id(), gathered);
    return {normalised->input().data(), normalised->affine(), normalised->numbers().mean(), gathered->sum_g, gathered->sum_gx};
  }

  template <class T>
  static Conv2dProblem problem_for(const Var<In, T>& x) {
    constexpr int reach = dilation * (Kernel - 1) + 1;
    if (x.n() < 1 || x.h() + 2 * padding < reach || x.w() + 2 * padding < reach)
      throw ShapeError(concat(name(), ": an image of ", x.h(), " x ", x.w(), " pixels (batch of ", x.n(),
                              ") is too small: padded, it must reach ", reach, " x ", reach));
    return problem_for(x.n(), x.h(), x.w());
  }
  static constexpr Conv2dProblem problem_for(std::int64_t n, std::int64_t h, std::int64_t w) {
    return {.n = n, .h = h, .w = w, .in = In, .out = Out, .kernel = Kernel, .stride = stride, .padding = padding,
            .dilation = dilation};
  }

  static_assert(In > 0 && Out > 0, "strata::Conv2d<In, Out, Kernel>: channel counts must be positive");
  static_assert(Kernel > 0, "strata::Conv2d<In, Out, Kernel>: Kernel must be positive");
  static_assert(Options.stride > 0 && Options.dilation > 0, "strata::Conv2d: stride and dilation must be positive");
  static_assert(Options.padding >= 0 || Options.padding == Conv2dOptions::same,
                "strata::Conv2d: padding must be 0 or more, or Conv2dOptions::same");
  static_assert(Kernel <= 0 || Options.padding >= 0 || (Options.dilation * (Kernel - 1)) % 2 == 0,
                "strata::Conv2d<In, Out, Kernel>: an even Kernel cannot keep the image's size: give a padding");
};

}  // namespace strata::inline STRATA_ABI
