// Rectifiers: ReLU, LeakyReLU, PReLU.
//
//     st::ReLU
//     st::LeakyReLU                                   // slope 0.01 below zero
//     st::LeakyReLUOf<std::ratio<1, 5>>               // slope 0.2
//     st::PReLU<64>                                   // a learned slope for each of 64 channels; PReLU<> learns one
#pragma once

#include <ratio>
#include <string>
#include <type_traits>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/cpu/pointwise.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

inline constexpr LayerMemory leaky_relu_memory{.keeps_input = false, .keeps_output = true, .gradient_in_place = true};

// y = x above 0, slope * x below. Keeps y, which the next layer keeps anyway.
template <Pass P, int C, class T>
Var<C, T> leaky_relu(P& pass, const Var<C, T>& x, T slope) {
  const Device device = x.device();
  Image<C, T> image(x.n(), x.h(), x.w(), x.pool());
  if (slope == T(0))
    backend::relu_forward(device, x.size(), x.data(), image.data());  // 0 and not NaN for -infinity
  else
    backend::leaky_relu_forward(device, x.size(), x.data(), image.data(), slope);
  auto y = pass.output(std::move(image));
  if constexpr (P::training)
    if (x.id() >= 0)
      pass.tape()->record(y.id(), [x_id = x.id(), y, slope, device](Tape& tape) {
        T* dy = tape.gradient<T>(y.id());
        if (tape.move_gradient(y.id(), x_id)) {
          backend::leaky_relu_backward<T>(device, y.size(), y.data(), dy, dy, slope, false);
        } else {
          const auto dx = tape.target<T>(x_id);
          backend::leaky_relu_backward<T>(device, y.size(), y.data(), dy, dx.data, slope, dx.accumulate);
        }
      }, y);
  return y;
}

}  // namespace detail

/// y = max(x, 0); the gradient at 0 is 0, as in PyTorch.
class ReLU : public Layer<ReLU> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return detail::leaky_relu_memory; }
  static constexpr Activation activation = Activation::relu;
  static std::string name() { return "ReLU()"; }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) {
    return x.template node<C>("Relu");
  }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return detail::leaky_relu(pass, x, T(0));
  }
};

/// y = x above 0, Slope * x below. Slope is a std::ratio from 0 to 1.
template <class Slope>
class LeakyReLUOf : public Layer<LeakyReLUOf<Slope>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr double negative_slope = double(Slope::num) / double(Slope::den);
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return detail::leaky_relu_memory; }
  static std::string name() { return concat("LeakyReLU(negative_slope=", negative_slope, ")"); }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) {
    return x.template node<C>("LeakyRelu", {}, {{"alpha", float(negative_slope)}});
  }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return detail::leaky_relu(pass, x, T(negative_slope));
  }

  static_assert(Slope::num >= 0 && Slope::num <= Slope::den, "strata::LeakyReLUOf<Slope>: Slope must be from 0 to 1");
};
using LeakyReLU = LeakyReLUOf<std::ratio<1, 100>>;

/// y = x above 0, weight[c] * x below (He et al., 2015). Slopes start at 0.25.
template <int Channels = 1>
class PReLU : public Layer<PReLU<Channels>> {
 public:
  using io = std::conditional_t<Channels == 1, keeps, maps<Channels, Channels>>;
  Parameter weight{Shape{Channels}, 0.25f};

  static constexpr bool is_leaf_layer = true;
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
  static constexpr void trace(auto&) {}
  static std::string name() { return concat("PReLU(num_parameters=", Channels, ")"); }
  template <int C, class Symbol>
  static auto onnx(auto& self, const Var<C, Symbol>& x) {
    return x.as_image().template node<C>("PRelu", {x.tensor(self.weight, {Channels, 1, 1})});
  }

  template <Pass P, int C, class T>
  static auto forward(auto& self, P& pass, const Var<C, T>& x) {
    const std::int64_t pixels = x.size() / C;
    check_same_device(x.device(), self.weight.device(), name);
    Image<C, T> image(x.n(), x.h(), x.w(), x.pool());
    backend::prelu_forward(x.device(), pixels, C, x.data(), std::as_const(self.weight).template value<T>().data(), Channels, image.data());
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [weight = &self.weight, x, id = y.id(), pixels](Tape& tape) {
        const auto dx = tape.target<T>(x.id());
        if (on_accelerator(x.device()))
          return detail::dispatch<T>(x.device(), [] {}, [&](auto& gpu) {
            gpu.prelu_backward(pixels, C, x.data(), std::as_const(*weight).value().data(), Channels, tape.gradient<T>(id), dx,
                               detail::gradient_target(*weight));
          });
        Parameter unused;
        if (!weight->requires_grad) unused = Parameter(weight->shape());
        const auto dw = (weight->requires_grad ? *weight : unused).template grad_target<T>();
        if (!dw.accumulate) std::fill_n(dw.data, Channels, T(0));
        cpu::prelu_backward(pixels, C, x.data(), std::as_const(*weight).template value<T>().data(), Channels, tape.gradient<T>(id),
                            dx.data, dx.accumulate, dw.data);
      }, x, self.weight);
    return y;
  }

  static_assert(Channels > 0, "strata::PReLU<Channels>: Channels must be positive");
};

}  // namespace strata::inline STRATA_ABI
