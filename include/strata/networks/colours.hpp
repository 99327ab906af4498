// What EDSR and RCAN share: the mean colour of their training images taken away and put back, and enlarging by pixel shuffles.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/nn/conv2d.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// y = weight x + bias, a 1 x 1 convolution with numbers that nobody trains. It starts as the authors have it: weight is the
/// identity and bias Sign times the mean colour of DIV2K, of images from 0 to 255.
template <int Sign>
class MeanShift : public Layer<MeanShift<Sign>> {
  using Conv = Conv2d<3, 3, 1>;

 public:
  using io = maps<3, 3>;
  Buffer weight{Shape{3, 3, 1, 1}};
  Buffer bias{Shape{3}};

  constexpr MeanShift() {
    if (std::is_constant_evaluated()) return;
    constexpr float mean[3] = {0.4488f, 0.4371f, 0.4040f};
    for (int c = 0; c < 3; ++c) {
      weight.value<float>().data()[c * 3 + c] = 1;
      bias.value<float>().data()[c] = float(Sign) * 255 * mean[c];
    }
  }

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) { Conv::trace(t); }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return Sign < 0 ? "MeanShift(-1)" : "MeanShift(1)"; }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, const Var<3, T>& x) {
    check_same_device(x.device(), self.weight.device(), name);
    const T *weight = std::as_const(self.weight).template value<T>().data(), *bias = std::as_const(self.bias).template value<T>().data();
    auto y = pass.output(Conv::convolve(x, weight, bias, Activation::none, pass.precision()));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [weights = std::as_const(self.weight).template value<T>(), x_id = x.id(), shape = x.shape(), id = y.id(),
                                   device = x.device(), precision = pass.precision()](Tape& tape) {
        const Conv2dProblem problem{.n = shape.n(), .h = shape.h(), .w = shape.w(), .in = 3, .out = 3, .kernel = 1, .padding = 0};
        if (const auto dx = tape.target<T>(x_id))
          backend::conv2d_backward_input<T>(device, problem, tape.gradient<T>(id), std::as_const(weights).data(), dx.data,
                                            dx.accumulate, precision);
      });
    return y;
  }
  /// For io/onnx_export.hpp.
  static auto onnx(auto& self, const auto& x) {
    return x.template node<3>("Conv", {x.tensor(self.weight), x.tensor(self.bias)}, {{"kernel_shape", std::vector<std::int64_t>{1, 1}}});
  }
};

template <int Features, int Factor>
struct PixelUpsamplerOf;
template <int Features>
struct PixelUpsamplerOf<Features, 2> {
  using type = Sequential<Conv2d<Features, 4 * Features>, PixelShuffle<4 * Features, 2>>;
};
template <int Features>
struct PixelUpsamplerOf<Features, 3> {
  using type = Sequential<Conv2d<Features, 9 * Features>, PixelShuffle<9 * Features, 3>>;
};
template <int Features>
struct PixelUpsamplerOf<Features, 4> {
  using type = Sequential<Conv2d<Features, 4 * Features>, PixelShuffle<4 * Features, 2>,  //
                          Conv2d<Features, 4 * Features>, PixelShuffle<4 * Features, 2>>;
};
/// Images Factor times as large (2, 3 or 4): channels become pixels.
template <int Features, int Factor>
using PixelUpsampler = typename PixelUpsamplerOf<Features, Factor>::type;

}  // namespace strata::inline STRATA_ABI::networks
