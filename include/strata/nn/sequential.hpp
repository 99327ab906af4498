// Modules one after another, with the channels checked by the compiler.
//
//     using Net = st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::BatchNorm2d<64>, st::Conv2d<64, 1>>;
//     Net net;
//     auto& first = net.layer<0>();
//
// A flat list, so that compile time grows with the number of layers only. Neighbours that can run as one step do (see
// nn/fuse.hpp); the result is the same.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/nn/following.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// One neighbourhood of a Sequential. The type carries the facts, so that every compiler prints them.
template <std::size_t Layer, class Previous, int Gives, class Next, int Wants>
struct link {
  static_assert(
      Gives == Wants,
      "strata::Sequential: channel mismatch: read link<Layer, Previous, Gives, Next, Wants> beside this message: "
      "layer number Layer (from 0), of type Next, wants Wants channels, but Previous before it gives Gives");
};

struct Signature {
  int in = 0, out = 0;  // 0: keeps any number
};
template <class M>
constexpr Signature signature_of() {
  if constexpr (requires { M::io::in; M::io::out; })
    return {M::io::in, M::io::out};
  else
    return {};
}

template <class... Ms>
struct Chain {
  static constexpr std::size_t size = sizeof...(Ms);
  static constexpr Signature signatures[size + 1] = {signature_of<Ms>()...};

  /// The last layer before i that fixes the number of channels, or size.
  static constexpr std::size_t fixed_before(std::size_t i) {
    while (i-- > 0)
      if (signatures[i].out != 0) return i;
    return size;
  }
  /// What layer i gets, for C channels given to the first.
  template <int C>
  static constexpr int channels_at(std::size_t i) {
    return fixed_before(i) == size ? C : signatures[fixed_before(i)].out;
  }
  static constexpr int in() {
    for (const Signature s : signatures)
      if (s.in != 0) return s.in;
    return 0;
  }
  static constexpr int out() { return fixed_before(size) == size ? 0 : signatures[fixed_before(size)].out; }

  /// Whether all neighbours fit.
  static constexpr bool fits() {
    for (std::size_t i = 0; i < size; ++i)
      if (signatures[i].in != 0 && fixed_before(i) != size && signatures[fixed_before(i)].out != signatures[i].in)
        return false;
    return true;
  }

  template <std::size_t I>
  static auto link_before() {
    if constexpr (signatures[I].in != 0 && fixed_before(I) != size)
      return std::type_identity<link<I, std::tuple_element_t<fixed_before(I), std::tuple<Ms...>>,
                                     signatures[fixed_before(I)].out, std::tuple_element_t<I, std::tuple<Ms...>>,
                                     signatures[I].in>>{};
    else
      return std::type_identity<std::tuple<>>{};
  }
};

/// Makes the links speak. As base classes, since then clang says what fails once.
template <class Indices, class... Ms>
struct Links;
template <std::size_t I, class Link>
struct IndexedLink : Link {};
template <std::size_t... I, class... Ms>
struct Links<std::index_sequence<I...>, Ms...>
    : IndexedLink<I, typename decltype(Chain<Ms...>::template link_before<I>())::type>... {};

/// A tuple whose elements are constructed from the last to the first, as libstdc++ does and libc++ does not: a layer's
/// first weights depend on how many layers were constructed before it (nn/init.hpp).
template <class... Ms>
constexpr std::tuple<Ms...> last_made_first() {
#if defined(__GLIBCXX__)
  return std::tuple<Ms...>();
#else
  if constexpr ((... && std::is_move_constructible_v<Ms>)) {
    if (std::is_constant_evaluated()) return std::tuple<Ms...>();  // the compiler draws no weights
    std::tuple<std::optional<Ms>...> made;
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      (std::get<sizeof...(Ms) - 1 - I>(made).emplace(), ...);
      return std::tuple<Ms...>(std::move(*std::get<I>(made))...);
    }(std::index_sequence_for<Ms...>{});
  } else {
    return std::tuple<Ms...>();
  }
#endif
}

/// The signature of a chain. A struct, since in() == 0 must not name maps<0, 0>.
template <int In, int Out>
struct IoOf { using type = maps<In, Out>; };
template <>
struct IoOf<0, 0> { using type = keeps; };

}  // namespace detail

template <class... Ms>
class Sequential : public Layer<Sequential<Ms...>> {
  using Chain = detail::Chain<Ms...>;

 public:
  using io = typename detail::IoOf<Chain::in(), Chain::out()>::type;
  static constexpr bool has_state = (... || detail::holds_state<Ms>);
  static constexpr std::size_t size = sizeof...(Ms);

  std::tuple<Ms...> layers = detail::last_made_first<Ms...>();

  template <std::size_t I>
  auto& layer() & {
    return std::get<I>(layers);
  }
  template <std::size_t I>
  const auto& layer() const& {
    return std::get<I>(layers);
  }
  template <std::size_t I>
  auto layer() && {
    return std::get<I>(std::move(layers));
  }

  static constexpr void visit(auto& self, auto&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(I, std::get<I>(self.layers)), ...);
    }(std::make_index_sequence<size>{});
  }

  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, Var<C, T> x) {
    if constexpr (!Chain::fits())
      return Var<Chain::out(), T>();  // the right type: nothing else fails after the sentence about the channels
    else if constexpr (Symbolic<Var<C, T>> && !requires { typename T::runs_as_images; })
      return follow<C, T>(self, pass, std::move(x));
    else
      return run<0>(self, pass, std::move(x));
  }

 private:
  template <std::size_t I, class P, class X>
  static auto run(auto& self, P& pass, X x) {
    if constexpr (I == size) {
      return x;
    } else {
      constexpr detail::FusedRun step = detail::fused_runs<P::training, Ms...>[I];
      auto y = [&] {
        if constexpr (step.length == 1)
          return detail::call(std::get<I>(self.layers), pass, x);
        else if constexpr (Symbolic<X>)
          return SymbolicRun<typename X::value_type>::template fused<I, step>(self.layers, x);
        else
          return run_fused<I, step>(self, pass, x);
      }();
      x = X();  // an Infer pass needs it no longer; a Train pass keeps what it needs on its tape
      return run<I + step.length>(self, pass, std::move(y));
    }
  }

  template <std::size_t I, detail::FusedRun Step, class P, class X>
  static auto run_fused(auto& self, P& pass, const X& x) {
    const detail::Observed observed(pass, std::get<I>(self.layers), x, Step.length);
    if constexpr (P::training)
      return [&]<std::size_t... K>(std::index_sequence<K...>) {
        return detail::run_or_forget(pass, x, [&] { return detail::fused_forward<I, Step>(self.layers, pass, x); },
                                     std::get<I + K>(self.layers)...);
      }(std::make_index_sequence<Step.length>{});
    else
      return detail::fused_forward<I, Step>(self.layers, pass, x);
  }

  /// Without numbers: one layer after another, not nested, so that a long list is no deep recursion for the compiler.
  template <int C, class T, class P>
  static constexpr auto follow(auto& self, P& pass, Var<C, T> x) {
    auto value = x.symbol();
    x = {};
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (follow_one<I, Chain::template channels_at<C>(I), T>(self, pass, value), ...);
    }(std::make_index_sequence<size>{});
    return Var<Chain::template channels_at<C>(size), T>(std::move(value));
  }
  template <std::size_t I, int C, class T, class P>
  static constexpr void follow_one(auto& self, P& pass, auto& value) {
    const Var<C, T> x(std::move(value));
    if constexpr (requires { x.symbol().run().next_runs(steps<true>[I], true); })
      x.symbol().run().next_runs(steps<true>[I], steps<P::training>[I].place > 0);
    value = detail::call(std::get<I>(self.layers), pass, x).symbol();
  }

  /// Which layers run as one step of a pass.
  template <bool Training>
  static constexpr auto steps = [] {
    std::array<detail::FusedStep, size + 1> all;
    for (std::size_t first = 0, length; first < size; first += length) {
      length = detail::fused_runs<Training, Ms...>[first].length;
      for (std::size_t place = 0; place < length; ++place) all[first + place] = {place, length};
    }
    return all;
  }();

  static_assert(sizeof...(Ms) > 0, "strata::Sequential<...>: give it at least one module");
  static_assert((... && detail::check_module<Ms>::listed));
  static_assert(sizeof(detail::Links<std::make_index_sequence<sizeof...(Ms)>, Ms...>) > 0);
};

}}  // namespace strata::STRATA_ABI
