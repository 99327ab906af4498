// Smooth activations: Sigmoid, Tanh, SiLU. The rectifiers are in nn/relu.hpp.
//
//     st::Sequential<st::GlobalAvgPool2d, st::Conv2d<64, 4, 1>, st::ReLU, st::Conv2d<4, 64, 1>, st::Sigmoid>
//
// In an expression of your own write st::sigmoid(x) and st::tanh(x): it is still one pass over memory.
#pragma once

#include <string>

#include "strata/autograd/expression.hpp"
#include "strata/nn/module.hpp"

namespace strata::inline STRATA_ABI {

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
  /// For io/onnx_export.hpp.
  static auto onnx(auto&, const auto& x) { return symbolic_value(Self::apply(x)); }
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

}  // namespace strata::inline STRATA_ABI
