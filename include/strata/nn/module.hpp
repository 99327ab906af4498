// What a network is made of. This is a complete module, written as the library's own are:
//
//     template <class Body>
//     struct Gated : st::Layer<Gated<Body>> {                     // y = x * sigmoid(body(x))
//       using io = typename Body::io;                             // st::maps<In, Out>, or st::keeps
//       Body body;
//
//       static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
//
//       static constexpr auto forward(auto& self, auto& pass, const auto& x) {
//         return x * sigmoid(self.body(pass, x));
//       }
//     };
//     Gated<st::Sequential<st::Conv2d<8, 8>, st::BatchNorm2d<8>>> gated;
//
// `io` is what it does to channels, `visit` the list of its members, from which their names and files follow. The one
// forward serves a module that is const and one that is not, float and double, training and inference. Since it takes
// images of any type it can be followed without numbers, for the network's facts, for tiles and for ONNX
// (nn/follow.hpp), by the compiler too where it is constexpr. Because its member's type is a template argument,
// st::fold knows the module's deploy form (deploy/fold.hpp).
//
// Nothing needs to be derived from: any type with `io`, `visit` and call operators `(st::Train&, x)` and `(st::Infer&,
// x) const`, or one template for both, is a module as well.
#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/visit.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The signature of a module that takes images of In channels and gives images of Out.
template <int In, int Out>
struct maps {
  static_assert(In > 0 && Out > 0, "strata::maps<In, Out>: channel counts must be positive");
  static constexpr int in = In, out = Out;
};
/// The signature of a module that takes any number of channels and gives as many.
struct keeps {};

/// A type that can stand in a network.
template <class M>
concept Module = requires { typename M::io; } && detail::has_visit<M>;

template <class Self>
class Layer;

namespace detail {

template <class M>
concept has_io = requires { typename M::io; };
template <class M>
concept fixes_channels = requires { M::io::in; };

template <class T>
inline constexpr bool never = false;

/// The errors of a type that is no module, one sentence each.
template <class M>
struct check_module {
  static_assert(sizeof(M) > 0);  // what M itself has to say comes first, and not as an answer to the questions below
  static_assert(has_io<M>,
                "strata: this module has no channel signature: add 'using io = strata::maps<In, Out>;' or "
                "'using io = strata::keeps;'");
  static_assert(has_visit<M>,
                "strata: this module does not list its members: add "
                "'static constexpr void visit(auto& self, auto&& f) { f(\"name\", self.name); }'");
  static constexpr bool listed = [] {
    if constexpr (has_io<M> && has_visit<M>) return sizeof(every_member_listed<M>) > 0;
    return true;
  }();
};

/// Read image_fits<Module, Given, Wanted> in the compiler's text.
template <class M, int Given, int Wanted>
struct image_fits {
  static_assert(
      Given == Wanted,
      "strata: an image with the wrong number of channels: read image_fits<Module, Given, Wanted> beside this "
      "message: Module wants images of Wanted channels, but got one of Given");
};

/// One for each type.
template <class M>
inline constexpr char type_mark = 0;

/// What a layer or module is called.
template <class M>
std::string layer_text() {
  if constexpr (requires { M::name(); })
    return M::name();
  else
    return std::string(type_text<M>());
}

/// Tells the pass's observer, if it has one, that `module` runs on x for as long as this lives.
class Observed {
 public:
  template <class P, class M, class X>
  constexpr Observed(P& pass, const M& module, const X& x, std::size_t layers = 1) : observer_(pass.observer()) {
    const auto takes_gradient = [&] {
      if constexpr (requires { x.id(); })
        return x.id() >= 0;
      else
        return false;  // an image, which is a constant
    };
    if (observer_ != nullptr)
      observer_->begin({.module = &module,
                        .type = &type_mark<M>,
                        .name = &layer_text<M>,
                        .layers = layers,
                        .input = x.shape(),
                        .element_bytes = sizeof(typename X::value_type),
                        .input_gradient = takes_gradient(),
                        .device = x.device()});
  }
  Observed(const Observed&) = delete;
  constexpr ~Observed() {
    if (observer_ != nullptr) observer_->end();
  }

 private:
  PassObserver* observer_;
};

struct Unobserved {
  constexpr Unobserved(const auto&...) {}
};
template <class M>
inline constexpr bool is_layer = std::is_base_of_v<Layer<M>, M>;

template <class M, class P, class X>
constexpr auto call(M& module, P& pass, const X& x) {
  if constexpr (Symbolic<X> && requires { SymbolicRun<typename X::value_type>::module(module, pass, x); }) {
    return SymbolicRun<typename X::value_type>::module(module, pass, x);
  } else if constexpr (requires { module(pass, x); }) {
    using Result = std::remove_cvref_t<decltype(module(pass, x))>;
    if constexpr (!variable_operand<Result>) {
      static_assert(variable_operand<Result>,
                    "strata: this module's call operator must return its result, an st::Var<C> or an expression (read "
                    "call<Module, "
                    "Pass, X> beside this message)");
      return x;
    } else {
      // A layer's own run is observed there; what is still to be computed of an expression counts here.
      constexpr bool elsewhere = Symbolic<X> || (IsVar<Result>::value && is_layer<std::remove_const_t<M>>);
      using Here = std::conditional_t<elsewhere, Unobserved, Observed>;
      const Here observed(pass, module, x);
      if constexpr (P::training && IsImage<Result>::value)
        if (x.id() >= 0)
          throw Error(
              concat("a module returned an Image in a training pass, and no gradient would flow back through it: let ",
                     type_text<std::remove_const_t<M>>(), " return an st::Var or an expression, or use st::custom_op"));
      return var_in(pass, module(pass, x));
    }
  } else if constexpr (Symbolic<X> && requires(std::remove_const_t<M>& m) { m(pass, x); }) {
    return var_in<P>(const_cast<std::remove_const_t<M>&>(module)(pass, x));  // nothing is computed that could change it
  } else if constexpr (Symbolic<X>) {
    static_assert(
        never<M>,
        "strata: this module cannot be followed, neither for its facts nor for ONNX: its call operator must take "
        "images of any type, as 'auto operator()(P& pass, const auto& x)'; or have it say what it does, in "
        "'static constexpr void trace(auto& t)' (nn/following.hpp) and, for ONNX, in a second call operator, "
        "'auto operator()(st::Infer& pass, const st::Symbolic auto& x) const' (io/onnx_export.hpp)");
    if constexpr (fixes_channels<M>)
      return Var<M::io::out, typename X::value_type>();  // the right type: nothing else fails after the sentence above
    else
      return x;
  } else if constexpr (std::is_const_v<M> && requires(std::remove_const_t<M>& m) { m(pass, x); }) {
    static_assert(
        never<M>,
        "strata: a const network holds a module whose call operator is not const: give the module a const one "
        "for st::Infer, or pass the network as non-const");
    return var_in<P>(const_cast<std::remove_const_t<M>&>(module)(pass, x));
  } else {
    return var_in<P>(module(pass, x));  // does not compile, and the compiler says why
  }
}

/// Whether something below a module is learned: a parameter that is not frozen.
template <class M>
bool learns(M& module) {
  bool any = false;
  if constexpr (holds_state<std::remove_const_t<M>>) {
    auto look = [&](auto& leaf) {
      if constexpr (requires { leaf.requires_grad; }) any = any || leaf.requires_grad;
    };
    each_leaf(module, look);
  }
  return any;
}

/// y(), which runs `modules` on x in a training pass: a constant, and nothing kept for the way back, where x is one and
/// all parameters are frozen.
template <class X, class Y, class... Ms>
auto run_or_forget(Train& pass, const X& x, Y&& y, Ms&... modules) {
  if (x.id() >= 0 || (learns(modules) || ...)) return y();
  const ForgetSteps forget(*pass.tape());
  return y().on(nullptr);
}

}  // namespace detail

/// The base of the library's modules: gives the call operators from `static auto forward(auto& self, auto& pass, x)`.
/// (Modules have their assertions at the end: clang reads a class no further than to the first that fails, and would go
/// on to complain about the members it has not read.) Images and expressions become variables on the way; a const
/// module that holds parameters takes an Infer pass only.
template <class Self>
class Layer : public LayerOf<Self> {
 public:
  // not left to the compiler: g++ 12 would forget, in a constant expression, what stands beside an empty layer
  constexpr Layer() {}

  template <Pass P, detail::variable_operand X>
  constexpr auto operator()(P& pass, const X& x) {
    return run(static_cast<Self&>(*this), pass, detail::var_in(pass, x));
  }
  template <Pass P, detail::variable_operand X>
  constexpr auto operator()(P& pass, const X& x) const {
    if constexpr (P::training && detail::holds_state<Self>) {
      static_assert(
          detail::never<X>,
          "strata: this module is const, and a Train pass changes it (gradients, running statistics): train a "
          "network that is not const, or use st::Infer");
      return run(const_cast<Self&>(static_cast<const Self&>(*this)), pass, detail::var_in(pass, x));
    } else {
      return run(static_cast<const Self&>(*this), pass, detail::var_in(pass, x));
    }
  }
  template <detail::variable_operand X>
  auto operator()(const X& x) const {
    static_assert(detail::never<X>,
                  "strata: a module is called with a pass: 'st::Infer pass; net(pass, x)', or st::Train to train");
    return as_var(x);
  }

 private:
  template <class S, class P, int C, class T>
  static constexpr auto run(S& self, P& pass, Var<C, T> x) {
    check_pass(pass, x, "a layer");
    if constexpr (detail::fixes_channels<Self>) {
      if constexpr (Self::io::in != C) {
        static_assert(sizeof(detail::image_fits<Self, C, Self::io::in>) > 0);
        return Var<Self::io::out, T>();  // the right type: nothing else fails after the sentence above
      } else {
        return step(self, pass, std::move(x));
      }
    } else {
      return step(self, pass, std::move(x));
    }
  }
  template <class S, class P, class X>
  static constexpr auto step(S& self, P& pass, X x) {
    if constexpr (Symbolic<X>)
      return SymbolicRun<typename X::value_type>::layer(self, pass, std::move(x));
    else
      return observed_step(self, pass, std::move(x));
  }
  template <class S, class P, class X>
  static constexpr auto observed_step(S& self, P& pass, X x) {
    const detail::Observed observed(pass, self, x);
    if constexpr (P::training && detail::IsVar<decltype(Self::forward(self, pass, x))>::value)
      return detail::run_or_forget(pass, x, [&] { return Self::forward(self, pass, std::move(x)); }, self);
    else
      return Self::forward(self, pass, std::move(x));
  }
};

/// Freezes the running statistics of all batch norms below a module, or thaws them. Returns how many there are.
template <class M>
int freeze_statistics(M& module, bool frozen = true) {
  using Plain = std::remove_cvref_t<M>;
  int count = 0;
  if constexpr (requires { module.frozen_statistics; }) {
    module.frozen_statistics = frozen;
    ++count;
  } else if constexpr (detail::has_visit<Plain>) {
    Plain::visit(module, [&](const auto&, auto& part) { count += freeze_statistics(part, frozen); });
  } else if constexpr (!detail::is_leaf<Plain>) {
    detail::each_part(std::string(), module,
                      [&](const std::string&, auto& part) { count += freeze_statistics(part, frozen); });
  }
  return count;
}

}}  // namespace strata::STRATA_ABI
