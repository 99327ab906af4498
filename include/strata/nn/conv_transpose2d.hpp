// ConvTranspose2d: the adjoint of a strided convolution, which makes images `stride` times as large.
//
//     st::ConvTranspose2d<64, 32, 4>                                        // twice as large: stride 2, padding 1
//     st::ConvTranspose2d<56, 1, 9, st::ConvTranspose2dOptions{.stride = 3}>
//     st::ConvTranspose2d<100, 512, 4, st::ConvTranspose2dOptions{.stride = 1, .padding = 0}>     // 1 x 1 to 4 x 4
//
// The kernels are those of Conv2d with the roles of input and output exchanged: what is forward there goes back here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/core/checksum.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The compile-time options of a transposed convolution, as PyTorch's. `same` makes the image `stride` times as large:
/// a padding of ceil((Kernel - stride) / 2), and then an output_padding of stride - Kernel + 2 * padding. With a
/// padding of one's own output_padding is 0 unless it is given.
struct ConvTranspose2dOptions {
  static constexpr int same = -1;
  int stride = 2;
  int padding = same;
  int output_padding = same;
  bool bias = true;
};

namespace detail {

/// y[pixel] += bias, on an accelerator.
inline void add_channel_bias(Device device, std::int64_t pixels, int channels, const float* bias, float* y,
                             MemoryPool& pool) {
  const Storage memory = pool.take(std::size_t(channels) * sizeof(float));
  float* const ones = static_cast<float*>(memory.data());
  dispatch<float>(
      device, [] {},
      [&](auto& gpu) {
        gpu.fill(ones, channels, 1.0f);
        gpu.batch_norm_apply(pixels, channels, y, {.scale = ones, .shift = const_cast<float*>(bias)}, y,
                             Activation::none);
      });
}

/// The gradient for a bias, the sum of dy over all pixels: that of a 1 x 1 convolution whose other gradient nobody
/// wants.
template <class T>
void channel_bias_gradient(Device device, std::int64_t pixels, Parameter& bias, const T* dy) {
  if (!bias.requires_grad) return;
  const int channels = int(bias.size());
  const Conv2dProblem problem{.n = 1, .h = pixels, .w = 1, .in = 1, .out = channels, .kernel = 1, .padding = 0};
  dispatch<T>(
      device,
      [&] {
        const auto target = bias.template grad_target<T>();
        Scratch<T> unused{std::size_t(channels)};
        if (target.accumulate) std::fill_n(unused.data(), channels, T(0));
        cpu::conv2d_backward_weight<T>(problem, dy, dy, unused.data(), target.data, target.accumulate);
      },
      [&](auto& gpu) { gpu.conv2d_backward_weight(problem, dy, dy, {}, gradient_target(bias), Precision::fp32); });
}

}  // namespace detail

/// y[o, i * stride + p - padding] += weight[c, o, p] * x[c, i] over all c, i, p, plus bias[o]; h rows become
/// (h - 1) * stride - 2 * padding + Kernel + output_padding. weight has shape (In, Out, Kernel, Kernel), bias (Out). As
/// torch.nn.ConvTranspose2d(In, Out, Kernel, stride, padding, output_padding).
template <int In, int Out, int Kernel, auto Options = ConvTranspose2dOptions{}, auto... More>
class ConvTranspose2d : public Layer<ConvTranspose2d<In, Out, Kernel, Options, More...>> {
 public:
  using io = maps<In, Out>;
  static constexpr auto options = detail::options_given<ConvTranspose2dOptions, Options, More...>();
  static constexpr int kernel = Kernel, stride = options.stride;
  static constexpr bool multiplies = options.padding == ConvTranspose2dOptions::same;  ///< h rows become stride * h
  static constexpr int padding = multiplies ? (Kernel - stride + 1) / 2 : options.padding;
  static constexpr int output_padding = options.output_padding != ConvTranspose2dOptions::same ? options.output_padding
                                        : multiplies ? stride - Kernel + 2 * padding
                                                     : 0;
  static constexpr bool has_bias = options.bias;

  Parameter weight{Shape{In, Out, Kernel, Kernel}};
  Parameter bias{has_bias ? Shape{Out} : Shape{0}};
  mutable cpu::PackedWeights packed;  ///< for Infer passes

  /// Starts with kaiming-normal weights, which no other layer has (nn/init.hpp); st::initialize(net, seed) draws anew.
  constexpr ConvTranspose2d() { detail::draw_default_weights(weight); }

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    if constexpr (has_bias) f("bias", self.bias);
  }

  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) {
    const Extents x = t.extents();
    t.channels(Out);
    t.multiply_adds(x.h * x.w * Out * In * Kernel * Kernel);
    t.transposed_window(Kernel, stride, padding, cpu::conv2d_input_rows_together(problem_for(1, x.h, x.w)),
                        output_padding);
  }
  static LayerMemory memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n(), x.h(), x.w());
    return {.forward = cpu::conv2d_input_workspace(p),
            .weight_gradient = cpu::conv2d_weight_workspace(p),
            .input_gradient = cpu::conv2d_forward_workspace(p, true),
            .packed = cpu::conv2d_transposed_packed_bytes(p),
            .forward_packed = cpu::conv2d_input_workspace(p) - cpu::conv2d_transposed_packed_bytes(p)};
  }
  static std::string name() {
    std::string text = concat("ConvTranspose2d(", In, ", ", Out, ", kernel_size=", Kernel, ", stride=", stride);
    if (padding != 0) text += concat(", padding=", padding);
    if (output_padding != 0) text += concat(", output_padding=", output_padding);
    return text + (has_bias ? ")" : ", bias=False)");
  }
  static auto onnx(auto& self, const auto& x) {
    const auto two = [](int number) { return std::vector<std::int64_t>{number, number}; };
    std::vector<std::string> tensors{x.tensor(self.weight)};
    if constexpr (has_bias) tensors.push_back(x.tensor(self.bias));
    return x.as_image().template node_of_other_size<Out>("ConvTranspose", std::move(tensors),
                                                         {{"kernel_shape", two(Kernel)},
                                                          {"strides", two(stride)},
                                                          {"pads", std::vector<std::int64_t>(4, padding)},
                                                          {"output_padding", two(output_padding)}});
  }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<In, T> x) {
    check_same_device(x.device(), self.weight.device(), name);
    if (x.size() == 0) throw ShapeError(concat(name(), ": the image has no pixels"));
    const Conv2dProblem problem = problem_for(x.n(), x.h(), x.w());
    if (problem.h < 1 || problem.w < 1)
      throw ShapeError(concat(name(), ": of an image of ", x.h(), " x ", x.w(),
                              " pixels the padding leaves nothing: give larger images"));
    const T* weight = std::as_const(self.weight).template value<T>().data();
    Image<Out, T> image(x.n(), problem.h, problem.w, x.pool());
    const T* bias = nullptr;
    if constexpr (has_bias) bias = std::as_const(self.bias).template value<T>().data();
    if constexpr (P::training)
      backend::conv2d_backward_input<T>(x.device(), problem, x.data(), weight, image.data(), false, pass.precision(),
                                        {}, bias);
    else
      backend::conv2d_transposed_cached<T>(
          x.device(), problem, x.data(), self.packed, [&] { return checksum(weight, problem.weight_size()); },
          [&] { return weight; }, bias, image.data(), pass.precision());
    if constexpr (has_bias && std::is_same_v<T, float>)
      if (on_accelerator(x.device()))
        detail::add_channel_bias(x.device(), image.size() / Out, Out, bias, image.data(), x.pool());
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(
          y.id(),
          [&self, problem, x, id = y.id(), precision = pass.precision()](Tape& tape) {
            T* dy = tape.gradient<T>(id);
            const Device device = x.device();
            detail::conv_parameter_gradients<T>(device, problem, self.weight, nullptr, dy, const_cast<T*>(x.data()),
                                                precision);
            if constexpr (has_bias) detail::channel_bias_gradient<T>(device, problem.input_size() / Out, self.bias, dy);
            if (const auto dx = tape.target<T>(x.id()))
              backend::conv2d_forward<T>(device, problem, dy, std::as_const(self.weight).template value<T>().data(),
                                         nullptr, dx.data, Activation::none, precision, {.accumulate = dx.accumulate});
          },
          x, self.weight, self.bias);
    return y;
  }

  /// The convolution whose adjoint this is.
  static constexpr Conv2dProblem problem_for(std::int64_t n, std::int64_t h, std::int64_t w) {
    constexpr int more = Kernel - 2 * padding + output_padding;
    return {.n = n,
            .h = (h - 1) * stride + more,
            .w = (w - 1) * stride + more,
            .in = Out,
            .out = In,
            .kernel = Kernel,
            .stride = stride,
            .padding = padding};
  }

  static_assert(In > 0 && Out > 0, "strata::ConvTranspose2d<In, Out, Kernel>: channel counts must be positive");
  static_assert(options.stride > 0, "strata::ConvTranspose2d: the stride must be positive");
  static_assert(Kernel > 0, "strata::ConvTranspose2d<In, Out, Kernel>: Kernel must be positive");
  static_assert(
      options.padding >= ConvTranspose2dOptions::same && options.output_padding >= ConvTranspose2dOptions::same,
      "strata::ConvTranspose2d: padding and output_padding must be 0 or more, or ConvTranspose2dOptions::same");
  static_assert(!multiplies || Kernel >= options.stride,
                "strata::ConvTranspose2d<In, Out, Kernel>: a Kernel below the stride leaves pixels without a value: "
                "give a padding if "
                "that is meant");
  static_assert(output_padding < stride || (multiplies && Kernel < stride),
                "strata::ConvTranspose2d: output_padding must be smaller than the stride");
};

}}  // namespace strata::STRATA_ABI
