// Linear: y = W x + b on images of one pixel, and Flatten, which makes such images.
//
//     st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Flatten<8, 7, 7>, st::Linear<392, 10>>
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/nn/conv2d.hpp"

namespace strata { inline namespace STRATA_ABI {

/// y[o] = bias[o] + sum over i of weight[o, i] * x[i]. weight has shape (Out, In), bias (Out). Images must have one
/// pixel.
template <int In, int Out, bool Bias = true>
class Linear : public Layer<Linear<In, Out, Bias>> {
 public:
  using io = maps<In, Out>;
  Parameter weight{Shape{Out, In}};
  Parameter bias{Bias ? Shape{Out} : Shape{0}};

  constexpr Linear() { detail::draw_default_weights(weight); }

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    if constexpr (Bias) f("bias", self.bias);
  }
  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) {
    t.wants(1, 1);
    t.channels(Out);
    t.multiply_adds(std::int64_t{Out} * In);
  }
  static std::string name() {
    return concat("Linear(in_features=", In, ", out_features=", Out, Bias ? ")" : ", bias=False)");
  }
  static auto onnx(auto& self, const auto& x) {
    std::vector<std::string> tensors{x.tensor(self.weight)};
    if constexpr (Bias) tensors.push_back(x.tensor(self.bias));
    return x.template flat<In>().template node<Out>("Gemm", std::move(tensors), {{"transB", std::int64_t{1}}});
  }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<In, T> x) {
    if (x.h() != 1 || x.w() != 1)
      throw ShapeError(concat(name(), ": got images of ", x.h(), " x ", x.w(),
                              " pixels, wanted 1 x 1: put st::Flatten<C, H, W> or st::GlobalAvgPool2d before it"));
    // A 1x1 convolution of one image whose pixels are the batch.
    const Conv2dProblem problem{.n = 1, .h = x.n(), .w = 1, .in = In, .out = Out, .kernel = 1, .padding = 0};
    check_same_device(x.device(), self.weight.device(), name);
    Image<Out, T> image(x.n(), 1, 1, x.pool());
    const T* bias_data = nullptr;
    if constexpr (Bias) bias_data = std::as_const(self.bias).template value<T>().data();
    backend::conv2d_forward<T>(x.device(), problem, x.data(), std::as_const(self.weight).template value<T>().data(),
                               bias_data, image.data(), Activation::none, pass.precision());
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [&self, problem, x, id = y.id(), precision = pass.precision()](Tape& tape) {
        T* dy = tape.gradient<T>(id);
        detail::conv_parameter_gradients<T>(x.device(), problem, self.weight, Bias ? &self.bias : nullptr, x.data(), dy,
                                            precision);
        if (const auto dx = tape.target<T>(x.id()))
          backend::conv2d_backward_input<T>(x.device(), problem, dy,
                                            std::as_const(self.weight).template value<T>().data(), dx.data,
                                            dx.accumulate, precision);
      }, x, self.weight, self.bias);
    return y;
  }

  static_assert(In > 0 && Out > 0, "strata::Linear<In, Out>: sizes must be positive");
};

/// Images of C x H x W become images of C*H*W channels and one pixel, in PyTorch's order (channel by channel).
template <int C, int H, int W>
class Flatten : public Layer<Flatten<C, H, W>> {
 public:
  using io = maps<C, C * H * W>;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    t.wants(H, W);
    t.whole_image();
    t.channels(C * H * W);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("Flatten(", C, "x", H, "x", W, ")"); }
  static auto onnx(auto&, const auto& x) { return x.template flat<C * H * W>(); }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    if (x.h() != H || x.w() != W)
      throw ShapeError(concat(name(), ": got images of ", x.h(), " x ", x.w(), " pixels, wanted ", H, " x ", W));
    Image<C * H * W, T> image(x.n(), 1, 1, x.pool());
    T* const out = image.data();
    detail::dispatch<T>(
        x.device(),
        [&] { permute(x.n(), [&](std::int64_t pixel, std::int64_t flat) { out[flat] = x.data()[pixel]; }); },
        [&](auto& gpu) { gpu.transpose(x.n(), H * W, C, x.data(), out, false); });
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
        const T* dy = tape.gradient<T>(id);
        const auto dx = tape.target<T>(x_id);
        if (!dx) return;
        detail::dispatch<T>(
            device,
            [&] {
              permute(n, [&](std::int64_t pixel, std::int64_t flat) {
                dx.data[pixel] = (dx.accumulate ? dx.data[pixel] : T(0)) + dy[flat];
              });
            },
            [&](auto& gpu) { gpu.transpose(n, C, H * W, dy, dx.data, dx.accumulate); });
      });
    return y;
  }

 private:
  static void permute(std::int64_t n, auto&& f) {
    for (std::int64_t image = 0; image < n; ++image)
      for (std::int64_t pixel = 0; pixel < H * W; ++pixel)
        for (std::int64_t c = 0; c < C; ++c) f((image * H * W + pixel) * C + c, (image * C + c) * H * W + pixel);
  }

  static_assert(C > 0 && H > 0 && W > 0, "strata::Flatten<C, H, W>: extents must be positive");
};

}}  // namespace strata::STRATA_ABI
