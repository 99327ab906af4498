// Operations with a gradient of their own.
//
//     auto y = st::custom_op(pass,
//         [](const st::Image<1>& x) { return my_filter(x); },                                            // y = f(x)
//         [](const st::Image<1>& gy, const st::Image<1>& y, const st::Image<1>& x) { return ...; },      // gx
//         x);
#pragma once

#include <tuple>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/channels.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// Adds an image to the gradient of value `id`.
template <int C, class T>
void add_gradient(Tape& tape, std::int64_t id, const Image<C, T>& g, const Shape& shape) {
  if (g.shape() != shape)
    throw ShapeError(concat("custom_op: backward gave a gradient of shape ", g.shape().str(), " for an input of shape ",
                            shape.str()));
  const auto target = tape.target<T>(id);
  if (!target) return;
  if (on_accelerator(g.device())) return copy_channels<T>(g.device(), g.data(), C, target.data, C, C, g.size() / C, target.accumulate);
  for (std::int64_t i = 0; i < g.size(); ++i) target.data[i] = (target.accumulate ? target.data[i] : T(0)) + g.data()[i];
}

/// Adds what a custom backward gave to the gradients of the inputs.
template <class Gradients, class Inputs, std::size_t... I>
void add_gradients(Tape& tape, const Gradients& gradients, const Inputs& inputs, std::index_sequence<I...>) {
  if constexpr (IsImage<Gradients>::value) {
    static_assert(sizeof...(I) == 1,
                  "strata::custom_op: backward must return a std::tuple with one gradient for each input");
    if constexpr (sizeof...(I) == 1) add_gradients(tape, std::tie(gradients), inputs, std::index_sequence<0>{});
  } else {
    constexpr bool one_each = std::tuple_size_v<Gradients> == sizeof...(I);
    static_assert(one_each, "strata::custom_op: backward must return a std::tuple with one gradient for each input");
    if constexpr (one_each)
      (add_gradient(tape, std::get<I>(inputs).id(), std::get<I>(gradients), std::get<I>(inputs).shape()), ...);
  }
}

}  // namespace detail

/// y = forward(x...) on images; backward(gy, y, x...) gives the gradient of the one input, or a std::tuple of one for
/// each. backward runs only when a gradient is needed.
template <Pass P, class Forward, class Backward, class... Xs>
auto custom_op(P& pass, Forward forward, Backward backward, const Xs&... inputs) {
  return detail::with_vars<P>([&]<int... C, class... T>(const Var<C, T>&... x) {
    (check_pass(pass, x, "custom_op"), ...);
    auto image = forward(x.value()...);
    static_assert(detail::IsImage<decltype(image)>::value, "strata::custom_op: forward must return an st::Image<C>");
    auto y = pass.output(std::move(image));
    if constexpr (P::training) {
      pass.tape()->record(y.id(), [backward, y, kept = std::tuple(x...)](Tape& tape) {
        using Y = std::remove_cvref_t<decltype(y.value())>;
        Y gy(y.n(), y.h(), y.w(), y.pool());
        copy_bytes(gy.data(), gy.device(), tape.gradient<typename Y::value_type>(y.id()), gy.device(),
                   std::size_t(gy.size()) * sizeof(typename Y::value_type));
        const auto gradients = std::apply(
            [&](const auto&... input) { return backward(std::as_const(gy), y.value(), input.value()...); }, kept);
        detail::add_gradients(tape, gradients, kept, std::index_sequence_for<Var<C, T>...>{});
      }, y, x...);
    }
    return y;
  }, inputs...);
}

/// One sentence where the forward is followed.
template <Pass P, class Forward, class Backward, Symbolic X, class... Xs>
auto custom_op(P&, Forward, Backward, const X& input, const Xs&...) {
  static_assert(sizeof(X) == 0,
                "strata: a module that uses custom_op cannot be followed: have it say what it does to an image, in "
                "'static constexpr void trace(auto& t)' (nn/following.hpp), and, to be exported, in a second call operator, "
                "'auto operator()(st::Infer& pass, const st::Symbolic auto& x) const' (io/onnx_export.hpp)");
  return detail::var_in<P>(input);  // nothing else fails after the sentence above
}

}  // namespace strata::inline STRATA_ABI
