// Linear: y = W x + b on images of one pixel. Flatten makes such images (nn/flatten.hpp).
//
//     st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Flatten<8, 7, 7>, st::Linear<392, 10>>
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/checksum.hpp"
#include "strata/cpu/packed_weights.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/flatten.hpp"
#include "strata/nn/following.hpp"

namespace strata { inline namespace STRATA_ABI {

/// y[o] = bias[o] + sum over i of weight[o, i] * x[i]. weight has shape (Out, In), bias (Out). Images must have one
/// pixel.
template <int In, int Out, bool Bias = true>
class Linear : public Layer<Linear<In, Out, Bias>> {
 public:
  using io = maps<In, Out>;
  Parameter weight{Shape{Out, In}};
  Parameter bias{Bias ? Shape{Out} : Shape{0}};
  mutable cpu::PackedWeights packed;  ///< for Infer passes

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
  static LayerMemory memory(const Shape& x) {
    const Conv2dProblem p = problem_for(x.n());
    return {.forward = cpu::conv2d_forward_workspace(p, true), .weight_gradient = cpu::conv2d_weight_workspace(p),
            .input_gradient = cpu::conv2d_input_workspace(p), .packed = cpu::conv2d_packed_bytes(p),
            .forward_packed = cpu::conv2d_forward_workspace(p, false)};
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
    const Conv2dProblem problem = problem_for(x.n());
    check_same_device(x.device(), self.weight.device(), name);
    Image<Out, T> image(x.n(), 1, 1, x.pool());
    const T* const weight = std::as_const(self.weight).template value<T>().data();
    const T* bias_data = nullptr;
    if constexpr (Bias) bias_data = std::as_const(self.bias).template value<T>().data();
    if constexpr (P::training)
      backend::conv2d_forward<T>(x.device(), problem, x.data(), weight, bias_data, image.data(), Activation::none,
                                 pass.precision());
    else
      backend::conv2d_forward_cached<T>(
          x.device(), problem, x.data(), self.packed, [&] { return checksum(weight, problem.weight_size()); },
          [&] { return weight; }, bias_data, image.data(), Activation::none, pass.precision());
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

 private:
  /// A 1 x 1 convolution of one image whose pixels are the batch.
  static Conv2dProblem problem_for(std::int64_t batch) {
    return {.n = 1, .h = batch, .w = 1, .in = In, .out = Out, .kernel = 1, .padding = 0};
  }
};

}}  // namespace strata::STRATA_ABI
