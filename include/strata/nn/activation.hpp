// Activations that are an expression: Sigmoid, Tanh, SiLU, GELU, ELU, Softplus, Mish, ReLU6, Hardsigmoid, Hardswish.
// The other rectifiers are in nn/relu.hpp.
//
//     st::Sequential<st::GlobalAvgPool2d, st::Conv2d<64, 4, 1>, st::ReLU, st::Conv2d<4, 64, 1>, st::Sigmoid>
//
//     st::GELUOf<st::Approximate::tanh>              // torch.nn.GELU(approximate="tanh")
//
// In an expression of your own write st::sigmoid(x) and st::tanh(x): it is still one pass over memory.
#pragma once

#include <ratio>
#include <string>

#include "strata/autograd/expression.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// A layer without state that computes Self::apply(x), an expression.
template <class Self>
class ExpressionLayer : public Layer<Self> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}

  template <Pass P, int C, class T>
  static Var<C, T> forward(auto&, P&, const Var<C, T>& x) {
    return Self::apply(x);
  }
  static auto onnx(auto&, const auto& x) { return as_var(Self::apply(x)); }
};

}  // namespace detail

/// y = 1 / (1 + e^-x).
class Sigmoid : public detail::ExpressionLayer<Sigmoid> {
 public:
  static std::string name() { return "Sigmoid()"; }
  static auto apply(const auto& x) { return sigmoid(x); }
};

/// y = tanh(x).
class Tanh : public detail::ExpressionLayer<Tanh> {
 public:
  static std::string name() { return "Tanh()"; }
  static auto apply(const auto& x) { return tanh(x); }
};

/// y = x * sigmoid(x), also called swish.
class SiLU : public detail::ExpressionLayer<SiLU> {
 public:
  static std::string name() { return "SiLU()"; }
  static auto apply(const auto& x) { return x * sigmoid(x); }
};

/// y = x * Phi(x), with Phi the normal distribution's: (1 + erf(x / sqrt(2))) / 2, or with Approximate::tanh its
/// approximation (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, as torch.nn.GELU(approximate="tanh").
template <Approximate How = Approximate::none>
class GELUOf : public detail::ExpressionLayer<GELUOf<How>> {
 public:
  static std::string name() { return How == Approximate::tanh ? "GELU(approximate='tanh')" : "GELU()"; }
  static auto apply(const auto& x) { return gelu<How>(x); }
};
using GELU = GELUOf<>;

/// y = x above 0, Alpha * (e^x - 1) otherwise.
template <class Alpha>
class ELUOf : public detail::ExpressionLayer<ELUOf<Alpha>> {
 public:
  static constexpr double alpha = double(Alpha::num) / double(Alpha::den);
  static std::string name() { return concat("ELU(alpha=", alpha, ")"); }
  static auto apply(const auto& x) { return maximum(x, 0.0) + (exp(minimum(x, 0.0)) - 1.0) * alpha; }
};
using ELU = ELUOf<std::ratio<1>>;

/// y = log(1 + e^x).
class Softplus : public detail::ExpressionLayer<Softplus> {
 public:
  static std::string name() { return "Softplus()"; }
  static auto apply(const auto& x) { return maximum(x, 0.0) + log(exp(-abs(x)) + 1.0); }
};

/// y = x * tanh(log(1 + e^x)).
class Mish : public detail::ExpressionLayer<Mish> {
 public:
  static std::string name() { return "Mish()"; }
  static auto apply(const auto& x) { return x * tanh(Softplus::apply(x)); }
};

/// y = x between 0 and 6, those outside.
class ReLU6 : public detail::ExpressionLayer<ReLU6> {
 public:
  static std::string name() { return "ReLU6()"; }
  static auto apply(const auto& x) { return clamp(x, 0.0, 6.0); }
};

/// y = (x + 3) / 6 between 0 and 1, those outside.
class Hardsigmoid : public detail::ExpressionLayer<Hardsigmoid> {
 public:
  static std::string name() { return "Hardsigmoid()"; }
  static auto apply(const auto& x) { return clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
};

/// y = x * hardsigmoid(x).
class Hardswish : public detail::ExpressionLayer<Hardswish> {
 public:
  static std::string name() { return "Hardswish()"; }
  static auto apply(const auto& x) { return x * Hardsigmoid::apply(x); }
};

}}  // namespace strata::STRATA_ABI
