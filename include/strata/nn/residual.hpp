// A network that predicts what to take away: y = x - body(x), as DnCNN predicts the noise (Zhang et al., 2017). For
// y = x + f(x) write the sum in a module of your own (nn/module.hpp shows one).
//
//     st::Residual<st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::Conv2d<64, 1>>>
#pragma once

#include <utility>

#include "strata/nn/module.hpp"
#include "strata/nn/repeat.hpp"

namespace strata::inline STRATA_ABI {

template <class M>
class Residual : public Layer<Residual<M>> {
 public:
  using io = typename detail::IoOrKeeps<M>::type;
  static constexpr bool has_state = detail::holds_state<M>;

  M body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  /// In a Train pass an expression: a loss of it is one pass over memory together with the subtraction.
  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, const Var<C, T>& x) {
    if constexpr (!detail::keeps_channels<M>())
      return x;
    else if constexpr (P::training)
      return x - detail::call(self.body, pass, x);
    else
      return detail::var_in<P>(x - detail::call(self.body, pass, x));
  }

  static_assert(detail::check_module<M>::listed);
  static_assert(detail::keeps_channels<M>(),
                "strata::Residual<M>: M must give as many channels as it takes, since x - M(x) subtracts them");
};

}  // namespace strata::inline STRATA_ABI
