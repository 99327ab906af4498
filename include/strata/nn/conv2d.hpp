// A 2-D convolution.
//
//     st::Conv2d<3, 64>                                     // 3x3, keeps the image's size, with bias
//     st::Conv2d<64, 64, 3, st::no_bias>
//     st::Conv2d<64, 128, 5, st::Conv2dOptions{.stride = 2, .padding = 2}>
//     st::Conv2d<128, 128, 3, st::Conv2dOptions{.groups = 32, .padding_mode = st::PaddingMode::reflect}>
//     st::Conv2d<64, 64, st::KernelSize{1, 7}>              // 1 row, 7 columns
//     st::DepthwiseConv2d<64>                               // groups = channels: each has a kernel of its own
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
#include "strata/cpu/conv2d_general.hpp"
#include "strata/nn/conv2d_options.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// "3", or "(1, 7)" as PyTorch prints what differs between rows and columns.
inline std::string pair_text(int rows, int columns) {
  return rows == columns ? std::to_string(rows) : concat("(", rows, ", ", columns, ")");
}

/// x with a border of its own pixels, as ONNX nodes. It counts as being of the size of x: the convolution behind takes
/// the border away.
template <class Conv, int C, class Symbol>
Var<C, Symbol> onnx_padding(const Var<C, Symbol>& x) {
  constexpr std::int64_t rows = Conv::window.padding, columns = Conv::window.columns().padding;
  using Numbers = std::vector<std::int64_t>;
  if constexpr (Conv::padding_mode != PaddingMode::circular) {
    return x.template node<C>("Pad", {x.constant({8}, Numbers{0, 0, rows, columns, 0, 0, rows, columns})},
                              {{"mode", Conv::padding_mode == PaddingMode::reflect ? "reflect" : "edge"}});
  } else {  // which Pad has from a later opset on: the other side's rows are put before and behind
    const auto wrapped = [](const Var<C, Symbol>& from, std::int64_t count, std::int64_t axis) {
      if (count == 0) return from;
      const auto slice = [&](std::int64_t first, std::int64_t end) {
        return from.template node<C>("Slice", {from.constant({1}, Numbers{first}), from.constant({1}, Numbers{end}),
                                                             from.constant({1}, Numbers{axis})});
      };
      const Var<C, Symbol> before = slice(-count, std::int64_t{1} << 40), behind = slice(0, count);
      return before.template node<C>("Concat", {from.symbol().name, behind.symbol().name}, {{"axis", axis}});
    };
    return wrapped(wrapped(x, rows, 2), columns, 3);
  }
}

/// A convolution with these weights as an ONNX node.
template <class Conv>
auto onnx_convolution(const auto& weights, const auto& x) {
  constexpr Window window = Conv::window, columns = window.columns();
  constexpr bool pads = Conv::padding_mode != PaddingMode::zeros && (window.padding > 0 || columns.padding > 0);
  const std::int64_t rows = pads ? 0 : window.padding, sides = pads ? 0 : columns.padding;
  using Numbers = std::vector<std::int64_t>;
  std::vector<std::string> tensors{x.tensor(weights.weight)};
  if constexpr (Conv::has_bias) tensors.push_back(x.tensor(weights.bias));
  typename std::remove_cvref_t<decltype(x)>::Attributes attributes{
      {"kernel_shape", Numbers{window.kernel, columns.kernel}},
      {"strides", Numbers{window.stride, window.stride}},
      {"pads", Numbers{rows, sides, rows, sides}},
      {"dilations", Numbers{window.dilation, window.dilation}}};
  if (Conv::groups > 1) attributes.push_back({"group", std::int64_t{Conv::groups}});
  const auto image = [&] {
    if constexpr (pads)
      return onnx_padding<Conv>(x.as_image());
    else
      return x.as_image();
  }();
  if constexpr (window.keeps_size())
    return image.template node<Conv::io::out>("Conv", std::move(tensors), std::move(attributes));
  else
    return image.template node_of_other_size<Conv::io::out>("Conv", std::move(tensors), std::move(attributes));
}

/// The same on an accelerator.
inline void conv_parameter_gradients(Accelerator& gpu, const Conv2dProblem& problem, Parameter& weight, Parameter* bias,
                                     const float* x, const float* dy, Precision precision) {
  const GradientTarget<> dweight = gradient_target(weight),
                         dbias = bias != nullptr ? gradient_target(*bias) : GradientTarget<>{};
  if (dweight || dbias) gpu.conv2d_backward_weight(problem, x, dy, dweight, dbias, precision);
}

/// Where the gradients of a convolution's weight and bias (nullptr: none) go, for kernels that give the first always
/// and add to both or to neither.
template <class T>
class ConvGradientTargets {
 public:
  ConvGradientTargets(Parameter& weight_leaf, Parameter* bias_leaf) {
    if (!weight_leaf.requires_grad) unused_ = Parameter(weight_leaf.shape());
    const auto dw = (weight_leaf.requires_grad ? weight_leaf : unused_).grad_target<T>();
    GradientTarget<T> db{nullptr, dw.accumulate};
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
void conv_parameter_gradients(Device device, const Conv2dProblem& problem, Parameter& weight, Parameter* bias,
                              const T* x, T* dy, Precision precision, const cpu::Conv2dBackwardFusion<T>& fusion = {}) {
  if (on_accelerator(device))
    return dispatch<T>(
        device, [] {}, [&](auto& gpu) { conv_parameter_gradients(gpu, problem, weight, bias, x, dy, precision); });
  if (!weight.requires_grad && !ConvGradientTargets<T>::wants(bias)) {
    if (fusion.output)
      cpu::batch_norm_backward_input(problem.output_size() / problem.out, problem.out, fusion.output, dy, dy, false);
    return;
  }
  const ConvGradientTargets<T> to(weight, bias);
  cpu::conv2d_backward_weight<T>(problem, x, dy, to.weight, to.bias, to.accumulate, fusion);
}

/// The same with groups, or with padding that is not zeros.
template <int Form, class T>
void general_parameter_gradients(Device device, const Conv2dProblem& problem, Parameter& weight, Parameter* bias,
                                 const T* x, const T* dy, Precision precision) {
  if (on_accelerator(device))
    return dispatch<T>(
        device, [] {}, [&](auto& gpu) { conv_parameter_gradients(gpu, problem, weight, bias, x, dy, precision); });
  if (!weight.requires_grad && !ConvGradientTargets<T>::wants(bias)) return;
  const ConvGradientTargets<T> to(weight, bias);
  cpu::general_backward_weight<Form, T>(problem, x, dy, to.weight, to.bias, to.accumulate);
}

}  // namespace detail

/// y[o] = bias[o] + sum over c, p, q of weight[o, c, p, q] * x[c, i + p, j + q]: cross-correlation, as in PyTorch.
/// weight has shape (Out, In / groups, Kernel, Kernel), bias (Out). Kernel is a number or a KernelSize. With groups the
/// channels are cut into so many parts on both sides, and c counts those of the part that o belongs to.
template <int In, int Out, auto Kernel = 3, auto Options = Conv2dOptions{}, auto... More>
class Conv2d : public Layer<Conv2d<In, Out, Kernel, Options, More...>> {
 public:
  using io = maps<In, Out>;
  static constexpr Conv2dOptions options = detail::options_given<Conv2dOptions, Options, More...>();
  static constexpr Window window = detail::conv_window(Kernel, options);
  static constexpr KernelSize kernel_size = Kernel;
  static constexpr int kernel = kernel_size.h, stride = options.stride, padding = window.padding,
                       dilation = options.dilation;
  static constexpr int groups = options.groups > 0 ? options.groups : 1;
  static constexpr PaddingMode padding_mode = options.padding_mode;
  static constexpr bool has_bias = options.bias;

 private:
  static constexpr bool pads_itself =
      padding_mode != PaddingMode::zeros && (padding > 0 || window.columns().padding > 0);
  static constexpr bool plain = groups == 1 && !pads_itself;
  template <class T>
  static constexpr int form = cpu::group_form<T>(In, Out, groups);

 public:
  static constexpr Shape weight_shape{Out, In / groups, kernel_size.h, kernel_size.w};
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
    // Where the border is made of pixels that the window does not hold, no part of the image is enough.
    if constexpr (pads_itself && (padding_mode == PaddingMode::circular || 2 * padding >= window.reach() ||
                                  2 * window.columns().padding >= window.columns().reach()))
      t.looks_at_whole_image();
    t.window(window, rows_together(problem_for(1, x.h, x.w)));
    t.multiply_adds(t.extents().h * t.extents().w * Out * (In / groups) * kernel_size.h * kernel_size.w);
  }
  static LayerMemory memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n(), x.h(), x.w());
    if constexpr (plain)
      return {.forward = cpu::conv2d_forward_workspace(p, true), .weight_gradient = cpu::conv2d_weight_workspace(p),
              .input_gradient = cpu::conv2d_input_workspace(p), .packed = cpu::conv2d_packed_bytes(p),
              .forward_packed = cpu::conv2d_forward_workspace(p, false),
              .reads_unnormalised = true, .normalises_a_copy = !cpu::conv2d_normalises_on_load(p)};
    else
      return {.forward = cpu::general_workspace(form<float>, p, 0),
              .weight_gradient = cpu::general_workspace(form<float>, p, 1),
              .input_gradient = cpu::general_workspace(form<float>, p, 2)};
  }
  static constexpr bool takes_affine = true, takes_activation = true, gathers_statistics = plain;
  using with_bias = Conv2d<In, Out, Kernel, detail::with_bias(options)>;
  static std::string name() {
    constexpr bool depthwise = groups > 1 && groups == In && groups == Out;
    std::string text = depthwise ? concat("DepthwiseConv2d(", In) : concat("Conv2d(", In, ", ", Out);
    text += ", kernel_size=" + detail::pair_text(kernel_size.h, kernel_size.w);
    if (stride != 1) text += concat(", stride=", stride);
    if (padding != 0 || window.columns().padding != 0)
      text += ", padding=" + detail::pair_text(padding, window.columns().padding);
    if (dilation != 1) text += concat(", dilation=", dilation);
    if (groups != 1) text += concat(", groups=", groups);
    if (!has_bias) text += ", bias=False";
    if (padding_mode != PaddingMode::zeros) text += concat(", padding_mode=", padding_mode_text(padding_mode));
    return text + ")";
  }

  static auto onnx(auto& self, const auto& x) { return detail::onnx_convolution<Conv2d>(self, x); }

  /// Of a layer that is never trained.
  static LayerMemory inference_memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n(), x.h(), x.w());
    if constexpr (plain)
      return {.forward = cpu::conv2d_forward_workspace(p, true), .packed = cpu::conv2d_packed_bytes(p),
              .forward_packed = cpu::conv2d_forward_workspace(p, false)};
    else
      return {.forward = cpu::general_workspace(form<float>, p, 0)};
  }

  /// The image that `weight` (O, KH, KW, I in memory) and `bias` (or nullptr) make of x. Statistics of it on request.
  template <class T>
  static Image<Out, T> convolve(const Var<In, T>& x, const T* weight, const T* bias, Activation activation,
                                Precision precision, const ChannelStatistics& statistics = {}) {
    const Conv2dProblem problem = problem_for(x);
    Image<Out, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    if constexpr (plain)
      backend::conv2d_forward<T>(x.device(), problem, source(x), weight, bias, image.data(), activation, precision,
                                 {affine(x), statistics});
    else
      backend::general_conv2d_forward<form<T>, T>(x.device(), problem, x.data(), weight, bias, image.data(), activation,
                                                  precision);
    return image;
  }

  /// `statistics` are those of the result, for a batch norm behind the layer. It then leaves the gradient of a ReLU to
  /// that.
  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<In, T> x, Activation activation = Activation::none,
                      const ChannelStatistics& statistics = {}) {
    check_same_device(x.device(), self.weight.device(), name);
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = nullptr;
    if constexpr (has_bias) bias = std::as_const(self.bias).template value<T>().data();
    if constexpr (!P::training) {
      return infer(
          pass, x, self.packed, [=] { return checksum(weight, weight_shape.size()); }, [=] { return weight; }, bias,
          activation);
    } else {
      auto y = pass.output(convolve(x, weight, bias, activation, pass.precision(), statistics));
      const bool rectify = activation == Activation::relu && !statistics;
      const Image<Out, T> rectified = rectify ? y.value() : Image<Out, T>();
      pass.tape()->record(y.id(), [&self, problem = problem_for(x), x, id = y.id(), kept = rectified,
                                   precision = pass.precision()](Tape& tape) {
        const T* const weights = std::as_const(self.weight).template value<T>().data();
        if constexpr (!plain) {
          T* dy = tape.gradient<T>(id);
          if (kept.size() != 0) backend::relu_backward(x.device(), kept.size(), kept.data(), dy, dy, false);
          detail::general_parameter_gradients<form<T>, T>(x.device(), problem, self.weight,
                                                          has_bias ? &self.bias : nullptr, x.data(), dy, precision);
          if (const auto dx = tape.target<T>(x.id()))
            backend::general_conv2d_backward_input<form<T>, T>(x.device(), problem, dy, weights, dx.data, dx.accumulate,
                                                               precision);
          return;
        }
        const auto pending = kept.size() == 0 ? tape.take<PendingNormGradient<Out, T>>(id) : nullptr;
        T* dy = tape.gradient<T>(id);
        const Device device = x.device();
        if (kept.size() != 0) backend::relu_backward(device, kept.size(), kept.data(), dy, dy, false);
        detail::conv_parameter_gradients<T>(
            device, problem, self.weight, has_bias ? &self.bias : nullptr, source(x), dy, precision,
            {affine(x), pending != nullptr ? pending->parameters() : NormGradient<T>{}});
        if (const auto dx = tape.target<T>(x.id()))
          backend::conv2d_backward_input<T>(device, problem, dy, weights, dx.data, dx.accumulate, precision,
                                            dx.accumulate ? NormGradientSums<T>{} : sums(tape, x));
      }, x, rectified, self.weight, self.bias);
      return y;
    }
  }

  /// The convolution of x with the weights that weights() gives and `biases` (or nullptr). The form that the CPU's
  /// kernels read is kept in `cache` under key(), a checksum of what the weights come from.
  template <class T, class Key, class Weights>
  static Var<Out, T> infer(Infer& pass, const Var<In, T>& x, cpu::PackedWeights& cache, Key&& key, Weights&& weights,
                           const T* biases, Activation activation) {
    if constexpr (!plain) return pass.output(convolve(x, weights(), biases, activation, pass.precision()));
    const Conv2dProblem problem = problem_for(x);
    Image<Out, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    backend::conv2d_forward_cached<T>(x.device(), problem, x.data(), cache, key, weights, biases, image.data(),
                                      activation, pass.precision());
    return pass.output(std::move(image));
  }

  /// Winograd's tiles lie at the same rows in a band as in the whole image, and it takes two of them for the kernel to
  /// be the same.
  static constexpr Bands bands = [] {
    Bands some{.possible = stride == 1 && padding_mode == PaddingMode::zeros && window.square()};
    if constexpr (plain)
      some.together = cpu::winograd::step * dilation,
      some.least = std::max<std::int64_t>(2 * some.together, window.reach());
    else
      some.possible = some.possible && form<float> != cpu::groups_apart;
    return some;
  }();
  /// The form of the weights that kernels read, in bytes, and what a band's convolution holds of many channels.
  static constexpr std::int64_t band_weight_bytes =
      std::int64_t{sizeof(float)} *
      (plain ? cpu::winograd::planes * cpu::winograd::FilterParts(kernel).count * std::int64_t{In} * Out +
                   cpu::winograd::deep_held_size(In, Out)
             : std::int64_t{kernel} * kernel * (In / groups) * Out);
  /// y from a band with its padding written out, by weights that stay as they are for as long as `cache` does.
  static void convolve_padded(const Image<In>& x, cpu::PackedWeights& cache, const float* weight, const float* bias,
                              Activation activation, Image<Out>& y) {
    Conv2dProblem problem = problem_for(1, y.h() + window.reach() - 1, x.w());
    problem.padding = 0, problem.padding_w = Conv2dProblem::as_rows;
    if constexpr (plain)
      cpu::conv2d_forward_cached<float>(
          problem, x.data(), cache, /*key=*/1, [&] { return weight; }, bias, y.data(), activation);
    else
      cpu::general_forward<form<float>, float>(problem, x.data(), weight, bias, y.data(), activation);
  }

 private:
  static constexpr int rows_together(const Conv2dProblem& p) {
    return plain || form<float> == cpu::groups_apart ? cpu::general_rows_together(p) : 1;
  }

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
    return {normalised->input().data(), normalised->affine(), normalised->numbers().mean(), gathered->sum_g,
            gathered->sum_gx};
  }

  template <class T>
  static Conv2dProblem problem_for(const Var<In, T>& x) {
    constexpr std::int64_t rows = window.reach(), columns = window.columns().reach();
    if (x.n() < 1 || x.h() + 2 * padding < rows || x.w() + 2 * window.columns().padding < columns)
      throw ShapeError(concat(name(), ": an image of ", x.h(), " x ", x.w(), " pixels (batch of ", x.n(),
                              ") is too small: padded, it must reach ", rows, " x ", columns));
    const Conv2dProblem problem = problem_for(x.n(), x.h(), x.w());
    if constexpr (!plain) check_padding(problem, name);
    return problem;
  }
  static constexpr Conv2dProblem problem_for(std::int64_t n, std::int64_t h, std::int64_t w) {
    return {.n = n, .h = h, .w = w, .in = In, .out = Out, .kernel = kernel, .stride = stride, .padding = padding,
            .dilation = dilation, .groups = groups, .padding_mode = pads_itself ? padding_mode : PaddingMode::zeros,
            .kernel_w = window.kernel_w, .padding_w = window.padding_w};
  }

  static_assert(In > 0 && Out > 0, "strata::Conv2d<In, Out, Kernel>: channel counts must be positive");
  static_assert(options.groups > 0 && In % groups == 0 && Out % groups == 0,
                "strata::Conv2d<In, Out, Kernel>: groups must divide both channel counts, In and Out");
  static_assert(kernel_size.h > 0 && kernel_size.w > 0, "strata::Conv2d<In, Out, Kernel>: Kernel must be positive");
  static_assert(options.stride > 0 && options.dilation > 0, "strata::Conv2d: stride and dilation must be positive");
  static_assert(options.padding >= 0 || options.padding == Conv2dOptions::same,
                "strata::Conv2d: padding must be 0 or more, or Conv2dOptions::same");
  static_assert(kernel_size.h <= 0 || kernel_size.w <= 0 || options.padding >= 0 ||
                    (options.dilation * (kernel_size.h - 1) % 2 == 0 &&
                     (options.padding_w >= 0 || options.dilation * (kernel_size.w - 1) % 2 == 0)),
                "strata::Conv2d<In, Out, Kernel>: an even Kernel cannot keep the image's size: give a padding");
};

/// Each channel has a kernel of its own: weight has shape (C, 1, Kernel, Kernel), bias (C).
template <int C, auto Kernel = 3, auto Options = Conv2dOptions{}, auto... More>
using DepthwiseConv2d =
    Conv2d<C, C, Kernel, detail::with_groups(detail::options_given<Conv2dOptions, Options, More...>(), C)>;

}}  // namespace strata::STRATA_ABI
