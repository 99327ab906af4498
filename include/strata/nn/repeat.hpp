// N modules of one type, one after another: the module is compiled once for any depth.
//
//     st::Repeat<15, st::Sequential<st::Conv2d<64, 64>, st::BatchNorm2d<64>, st::ReLU>>
#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Whether M gives as many channels as it takes; true for what is no module, which another sentence reports.
template <class M>
constexpr bool keeps_channels() {
  if constexpr (requires { M::io::in; M::io::out; })
    return M::io::in == M::io::out;
  else
    return true;
}
template <class M>
struct IoOrKeeps { using type = keeps; };
template <has_io M>
struct IoOrKeeps<M> { using type = typename M::io; };

}  // namespace detail

template <int N, class M>
class Repeat : public Layer<Repeat<N, M>> {
 public:
  using io = typename detail::IoOrKeeps<M>::type;
  static constexpr bool has_state = detail::holds_state<M>;

  std::array<M, std::size_t(N)> blocks;

  static constexpr void visit(auto& self, auto&& f) {
    for (std::size_t i = 0; i < std::size_t(N); ++i) f(i, self.blocks[i]);
  }

  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, Var<C, T> x) {
    if constexpr (detail::keeps_channels<M>())  // else the sentence above has been said
      for (auto& block : self.blocks) x = detail::call(block, pass, x);
    return x;
  }

  static_assert(N > 0, "strata::Repeat<N, M>: N must be positive");
  static_assert(detail::check_module<M>::listed);
  static_assert(detail::keeps_channels<M>(), "strata::Repeat<N, M>: M must give as many channels as it takes");
};

}}  // namespace strata::STRATA_ABI
