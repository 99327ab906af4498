// Arithmetic on variables. An expression is a type that remembers its operands; it is computed when a loss or a layer
// needs its value, in one pass over memory whatever its length, and one pass back.
//
//     auto charbonnier = mean(sqrt(square(prediction - target) + 1e-6f));
//     st::Var<3> y = x + 0.1f * body(pass, x);
//
// Operands are variables, images, numbers, learned numbers (autograd/numbers_node.hpp) and scalars: + - * / negate
// square sqrt abs exp log sigmoid tanh erf clamp relu leaky_relu silu gelu pow maximum minimum mean sum. An image of
// one channel fits beside images of any (autograd/repeated_node.hpp); heights and widths must be equal.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/autograd/expression_nodes.hpp"
#include "strata/autograd/numbers_node.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// The value of an expression, computed over all cores.
template <class E>
auto compute(const E& expression) {
  using T = typename E::value_type;
  const Shape& shape = *expression.shape_or_null();
  if (on_accelerator(expression.pool_or_null()->device())) return compute_on_accelerator(expression);
  Image<E::channels, T> out(shape.n(), shape.h(), shape.w());
  T* y = out.data();
  parallel_ranges(shape.size(), expression_grain, [&](std::int64_t begin, std::int64_t end) {
    sweep<T>(begin, end, [&]<class V>(std::int64_t i) { simd::store<V>(y + i, expression.template eval<V>(i)); });
  });
  return out;
}

/// Hands upstream<V>(i), the gradient at element i, down to the leaves, over all cores.
template <class E, class Upstream>
void go_back([[maybe_unused]] Tape& tape, E& expression, std::int64_t size, Upstream&& upstream) {
  using T = typename E::value_type;
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    sweep<T>(begin, end,
             [&]<class V>(std::int64_t i) { expression.template backward<V>(i, upstream.template operator()<V>(i)); });
  };
  if constexpr (holds_sums<E>)
    go_back_with_sums(tape, expression, size, run);
  else
    parallel_ranges(size, expression_grain, run);
}

/// The same, recorded when an operand is on a tape, or on `tape`.
template <class E>
constexpr auto evaluate(const E& expression, Tape* tape) {
  using T = typename E::value_type;
  if constexpr (Symbolic<E>) {
    return SymbolicRun<T>::value(expression);
  } else {
    if (tape == nullptr) {
      if constexpr (holds_numbers<E>) check_nothing_is_lost(expression);
      return expression.of_inference() ? Var<E::channels, T>::of_inference_pass(compute(expression))
                                       : Var<E::channels, T>(compute(expression));
    }
    Var<E::channels, T> result(compute(expression), tape);
    if (on_accelerator(result.device())) {
      record_on_accelerator(expression, result);
      return result;
    }
    tape->record(result.id(), [bound = expression, id = result.id(), size = result.size()](Tape& t) mutable {
      bound.bind(t);
      const T* gy = t.gradient<T>(id);
      go_back(t, bound, size, [gy]<class V>(std::int64_t i) STRATA_INLINED { return simd::load<V>(gy + i); });
    }, expression);
    return result;
  }
}
template <class E>
constexpr auto evaluate(const E& expression) {
  if constexpr (Symbolic<E>)
    return evaluate(expression, nullptr);
  else
    return evaluate(expression, expression.tape());
}

/// factor * (sum of all elements): double accumulation, in an order that depends on the size alone.
template <class E>
auto reduce(const E& expression, double factor) {
  using T = typename E::value_type;
  static_assert(
      !Symbolic<E>,
      "strata: a module whose forward takes the sum or mean of an image as a number cannot be followed or exported");
  const std::int64_t size = expression.shape_or_null()->size();
  if constexpr (holds_numbers<E>)
    if (expression.tape() == nullptr) check_nothing_is_lost(expression);
  if (on_accelerator(expression.pool_or_null()->device())) return reduce_on_accelerator(expression, factor);
  const std::int64_t tasks = (size + expression_grain - 1) / expression_grain;
  Scratch<double> partial(std::size_t(std::max<std::int64_t>(tasks, 1)));
  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * expression_grain, end = std::min(size, begin + expression_grain);
    double total = 0;
    for (std::int64_t low = begin; low < end; low += 512) {  // short runs in T, their sums in double
      simd::Vector<T> lanes_sum{};
      T rest = 0;
      sweep<T>(low, std::min(end, low + 512), [&]<class V>(std::int64_t i) {
        if constexpr (std::is_same_v<V, T>)
          rest += expression.template eval<V>(i);
        else
          lanes_sum += expression.template eval<V>(i);
      });
      total += double(rest);
      for (int lane = 0; lane < simd::lanes<simd::Vector<T>>; ++lane) total += double(lanes_sum[lane]);
    }
    partial[std::size_t(task)] = total;
  });
  double total = 0;
  for (std::int64_t task = 0; task < tasks; ++task) total += partial[std::size_t(task)];

  Tape* tape = expression.tape();
  Scalar<T> result(T(total * factor), tape);
  if (tape != nullptr)
    tape->record(result.id(), [bound = expression, id = result.id(), size, factor](Tape& t) mutable {
      bound.bind(t);
      const T g = T(double(*t.gradient<T>(id)) * factor);
      go_back(t, bound, size, [g]<class V>(std::int64_t) STRATA_INLINED { return V{} + g; });
    }, expression);
  return result;
}

}  // namespace detail

/// For Tape::record.
template <class E>
  requires detail::is_expression<E>
void keep_for_backward(KeptList& list, const E& expression) {
  expression.keep(list, false);
}

template <class E>
  requires detail::is_expression<E>
constexpr auto as_var(const E& expression) {
  return detail::evaluate(expression);
}

namespace detail {

/// x as a variable of a pass of type P. For an Infer pass an expression is computed without a tape, so that a program
/// that only infers holds no code of the way back.
template <Pass P, class X>
constexpr decltype(auto) var_in(const X& x) {
  if constexpr (!P::training && is_expression<X> && !Symbolic<X>) {
    if (x.tape() != nullptr) throw_of_another_pass("an inference pass");
    return Var<X::channels, typename X::value_type>::of_inference_pass(compute(x));
  } else {
    return as_var(x);
  }
}
/// The same of this pass: in a Train pass learned numbers get their gradient even where no image has one.
template <Pass P, class X>
constexpr decltype(auto) var_in([[maybe_unused]] P& pass, const X& x) {
  if constexpr (P::training && is_expression<X> && !Symbolic<X>) {
    if constexpr (holds_numbers<X>) {
      check_pass_of_expression(pass, x);
      return evaluate(x, pass.tape());
    } else {
      return as_var(x);
    }
  } else {
    return var_in<P>(x);
  }
}

}  // namespace detail

/// x as a variable of this pass: an image, a variable or an expression.
template <Pass P, detail::variable_operand X>
constexpr auto as_var(P& pass, const X& x) {
  return detail::var_in(pass, x);
}

template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator+(const A& a, const B& b) { return detail::binary<math::Add>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator-(const A& a, const B& b) { return detail::binary<math::Subtract>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator*(const A& a, const B& b) { return detail::binary<math::Multiply>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator/(const A& a, const B& b) { return detail::binary<math::Divide>(a, b); }
/// The larger of a and b, element by element.
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto maximum(const A& a, const B& b) { return detail::binary<math::Maximum>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto minimum(const A& a, const B& b) { return detail::binary<math::Minimum>(a, b); }

template <detail::variable_operand A>
constexpr auto operator-(const A& a) { return detail::unary<math::Negate>(a); }
template <detail::variable_operand A>
constexpr auto square(const A& a) { return detail::unary<math::Square>(a); }
template <detail::variable_operand A>
constexpr auto sqrt(const A& a) { return detail::unary<math::Sqrt>(a); }
template <detail::variable_operand A>
constexpr auto abs(const A& a) { return detail::unary<math::Abs>(a); }
template <detail::variable_operand A>
constexpr auto exp(const A& a) { return detail::unary<math::Exp>(a); }
template <detail::variable_operand A>
constexpr auto log(const A& a) { return detail::unary<math::Log>(a); }
template <detail::variable_operand A>
constexpr auto sigmoid(const A& a) { return detail::unary<math::Sigmoid>(a); }
template <detail::variable_operand A>
constexpr auto tanh(const A& a) { return detail::unary<math::Tanh>(a); }
template <detail::variable_operand A>
constexpr auto erf(const A& a) { return detail::unary<math::Erf>(a); }
/// Values below low become low, above high become high; there the gradient is 0. Throws ValueError for low > high. (Of
/// an image it is an image: tensor/image.hpp.)
template <detail::variable_operand A>
  requires(!detail::IsImage<A>::value)
constexpr auto clamp(const A& a, double low, double high) {
  if (!(low <= high)) throw ValueError(concat("clamp: low ", low, " must not be above high ", high));
  return detail::unary(a, math::Clamp{low, high});
}

/// The larger of x and 0; slope * x below 0. At 0 the derivative is 0, or the slope.
template <detail::variable_operand A>
constexpr auto relu(const A& a) { return detail::unary(a, math::LeakyRelu{}); }
template <detail::variable_operand A>
constexpr auto leaky_relu(const A& a, double negative_slope = 0.01) {
  return detail::unary(a, math::LeakyRelu{negative_slope});
}
/// a^exponent.
template <detail::variable_operand A>
constexpr auto pow(const A& a, double exponent) { return detail::unary(a, math::Power{exponent}); }
/// x * sigmoid(x). Of an expression as x each use computes it: keep it in a variable where it is long.
template <detail::variable_operand A>
constexpr auto silu(const A& x) { return x * sigmoid(x); }
/// How gelu computes the normal distribution: as it is, or by tanh, as torch's approximate="tanh".
enum class Approximate { none, tanh };
/// x * (1 + erf(x / sqrt(2))) / 2, or x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2:
/// st::gelu<st::Approximate::tanh>(x).
template <Approximate How = Approximate::none, detail::variable_operand A>
constexpr auto gelu(const A& x) {
  if constexpr (How == Approximate::tanh)
    return x * (tanh((x + 0.044715 * (square(x) * x)) * 0.79788456080286535588) * 0.5 + 0.5);
  else
    return x * (erf(x * 0.70710678118654752440) * 0.5 + 0.5);
}

/// The sum of all elements.
template <detail::variable_operand A>
auto sum(const A& a) { return detail::reduce(detail::node<typename A::value_type>(a), 1.0); }
/// The mean of all elements. Throws ShapeError for an empty image.
template <detail::variable_operand A>
auto mean(const A& a) {
  const auto node = detail::node<typename A::value_type>(a);
  const std::int64_t size = node.shape_or_null()->size();
  if (size == 0) throw ShapeError("mean: the image is empty");
  return detail::reduce(node, 1.0 / double(size));
}

}}  // namespace strata::STRATA_ABI
