// What the networks of this folder are put together with: PyTorch's names on chains of layers, and y = x + f(x).
//
//     Unrolled<Conv2d<1, 8>, ReLU, Repeat<2, Sequential<Conv2d<8, 8>, ReLU>>>        // 0.weight, 2.weight, 4.weight
//     f("conv1", norm.layer<0>()), f("bn1", norm.layer<1>())      // is   list_as(f, norm, "conv1", "bn1")
//
// A network with batch norm is a template on Form, which every member's type goes through: `as_trained` leaves it as it is, and
// `deploy_t` (deploy/fold.hpp) makes of it what folding does. So the folded network is the same class, with other members.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/deploy/fold.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/module.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

template <class M>
using as_trained = M;

/// Lists the layers of a chain that hold parameters under these names, as PyTorch's modules do that hold them side by side. A
/// folded chain has lost its batch norms: then names are left over.
template <class F, class Chain, class... Names>
constexpr void list_as(F&& f, Chain& chain, const Names&... names) {
  std::size_t next = 0;
  std::remove_const_t<Chain>::visit(chain, [&](auto, auto& layer) {
    if constexpr (detail::holds_state<decltype(layer)>) {
      std::size_t place = 0;
      ((place++ == next ? f(names, layer) : void()), ...);
      ++next;
    }
  });
}

/// A Sequential whose Repeats count in its names as if their modules stood in it one by one: nn.Sequential(*modules), filled in
/// a loop. A Repeat<N, Sequential<...>> repeats several of its places; a Sequential that stands alone is one place.
template <class... Ms>
class Unrolled : public Layer<Unrolled<Ms...>> {
 public:
  using Chain = Sequential<Ms...>;
  using io = typename Chain::io;
  static constexpr bool has_state = Chain::has_state;

  Chain chain;

  template <std::size_t I>
  auto& layer() {
    return chain.template layer<I>();
  }
  template <std::size_t I>
  const auto& layer() const {
    return chain.template layer<I>();
  }

  static constexpr void visit(auto& self, auto&& f) {
    std::size_t next = 0;
    Chain::visit(self.chain, [&](auto, auto& part) { list(part, next, f); });
  }
  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, const Var<C, T>& x) {
    return self.chain(pass, x);
  }
  /// A plain Sequential, opened: of its names nobody knows.
  auto fold() const { return strata::fold(chain); }

 private:
  template <class M>
  struct Kind {
    static constexpr bool repeats = false;
  };
  template <int N, class M>
  struct Kind<Repeat<N, M>> {
    static constexpr bool repeats = true;
  };
  template <int N, class... Parts>
  struct Kind<Repeat<N, Sequential<Parts...>>> {
    static constexpr bool repeats = true, several = true;
  };
  template <class Part>
  static constexpr void list(Part& part, std::size_t& next, auto&& f) {
    using Its = Kind<std::remove_const_t<Part>>;
    if constexpr (!Its::repeats)
      f(next++, part);
    else
      for (auto& block : part.blocks) {
        if constexpr (requires { Its::several; })
          std::remove_cvref_t<decltype(block)>::visit(block, [&](auto, auto& layer) { f(next++, layer); });
        else
          f(next++, block);
      }
  }
};

/// y = x + body(x).
template <class Body>
class Add : public Layer<Add<Body>> {
 public:
  using io = typename Body::io;
  static constexpr bool has_state = detail::holds_state<Body>;

  Body body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return as_var(x + self.body(pass, x));
  }
  auto fold() const {
    Add<deploy_t<Body>> folded;
    folded.body = strata::fold(body);
    return folded;
  }
};

}  // namespace strata::inline STRATA_ABI::networks
