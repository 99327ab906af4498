// Skip connections: Add is the field's residual block, Subtract a network that predicts what to take away.
//
//     st::Add<st::Sequential<st::Conv2d<64, 64>, st::ReLU, st::Conv2d<64, 64>>>       // y = x + body(x)
//     st::Add<Body, std::ratio<1, 10>>                                                // y = x + 0.1 body(x), as EDSR
//     st::Subtract<Body>                                                              // y = x - body(x), as DnCNN
//
// Both keep the number of channels. In a Train pass they give an expression: a loss of it is one pass over memory
// together with the sum.
#pragma once

#include <ratio>

#include "strata/nn/module.hpp"
#include "strata/nn/repeat.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// What both have in common: y = join(x, body(x)).
template <class Self, class Body>
class Skip : public Layer<Self> {
 public:
  using io = typename IoOrKeeps<Body>::type;
  static constexpr bool has_state = holds_state<Body>;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, const Var<C, T>& x) {
    if constexpr (!keeps_channels<Body>())
      return x;  // the sentence has been said
    else if constexpr (P::training)
      return self.join(pass, x, call(self.body, pass, x));
    else
      return var_in<P>(self.join(pass, x, call(self.body, pass, x)));
  }
};

}  // namespace detail

/// y = x + Scale * body(x). Scale is a std::ratio (He et al., 2016; with a scale: Lim et al., 2017).
template <class Body, class Scale = std::ratio<1>>
class Add : public detail::Skip<Add<Body, Scale>, Body> {
 public:
  Body body;

  static constexpr auto join(auto&, const auto& x, const auto& y) {
    if constexpr (Scale::num == Scale::den)
      return x + y;
    else
      return x + y * (double(Scale::num) / double(Scale::den));
  }

  static_assert(detail::check_module<Body>::listed);
  static_assert(detail::keeps_channels<Body>(),
                "strata::Add<Body>: Body must give as many channels as it takes, since x + Body(x) adds them");
};

/// y = x - body(x): body learns the noise (Zhang et al., 2017).
template <class Body>
class Subtract : public detail::Skip<Subtract<Body>, Body> {
 public:
  Body body;

  static constexpr auto join(auto&, const auto& x, const auto& y) { return x - y; }

  static_assert(detail::check_module<Body>::listed);
  static_assert(
      detail::keeps_channels<Body>(),
      "strata::Subtract<Body>: Body must give as many channels as it takes, since x - Body(x) subtracts them");
};

}  // namespace strata::inline STRATA_ABI
