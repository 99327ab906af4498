// Arithmetic on scalars, to combine losses:
//
//     auto loss = mse(prediction, target) + 0.1f * mean(abs(prediction));
#pragma once

#include <type_traits>

#include "strata/autograd/variable.hpp"
#include "strata/math/functions.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

template <class T>
void add_gradient(Tape& tape, std::int64_t id, T g) {
  if (const auto target = tape.target<T>(id)) *target.data = target.accumulate ? *target.data + g : g;
}

template <class Function, class T>
Scalar<T> scalar_unary(const Scalar<T>& a) {
  Scalar<T> y(Function::value(a.item()), a.tape());
  if (y.tape() != nullptr)
    y.tape()->record(y.id(), [a, y](Tape& tape) {
      add_gradient(tape, a.id(), *tape.gradient<T>(y.id()) * Function::derivative(a.item(), y.item()));
    });
  return y;
}

template <class Function, class T>
Scalar<T> scalar_binary(const Scalar<T>& a, const Scalar<T>& b) {
  Scalar<T> y(Function::value(a.item(), b.item()), common_tape(a, b));
  if (y.tape() != nullptr)
    y.tape()->record(y.id(), [a, b, y](Tape& tape) {
      T ga, gb;
      Function::backward(a.item(), b.item(), y.item(), *tape.gradient<T>(y.id()), ga, gb);
      add_gradient(tape, a.id(), ga);
      add_gradient(tape, b.id(), gb);
    });
  return y;
}

template <class N>
concept number = std::is_arithmetic_v<N>;

}  // namespace detail

template <class T>
Scalar<T> operator+(const Scalar<T>& a, const Scalar<T>& b) { return detail::scalar_binary<math::Add>(a, b); }
template <class T>
Scalar<T> operator-(const Scalar<T>& a, const Scalar<T>& b) { return detail::scalar_binary<math::Subtract>(a, b); }
template <class T>
Scalar<T> operator*(const Scalar<T>& a, const Scalar<T>& b) { return detail::scalar_binary<math::Multiply>(a, b); }
template <class T>
Scalar<T> operator/(const Scalar<T>& a, const Scalar<T>& b) { return detail::scalar_binary<math::Divide>(a, b); }

template <class T, detail::number N>
Scalar<T> operator+(const Scalar<T>& a, N b) { return a + Scalar<T>(T(b)); }
template <class T, detail::number N>
Scalar<T> operator+(N a, const Scalar<T>& b) { return Scalar<T>(T(a)) + b; }
template <class T, detail::number N>
Scalar<T> operator-(const Scalar<T>& a, N b) { return a - Scalar<T>(T(b)); }
template <class T, detail::number N>
Scalar<T> operator-(N a, const Scalar<T>& b) { return Scalar<T>(T(a)) - b; }
template <class T, detail::number N>
Scalar<T> operator*(const Scalar<T>& a, N b) { return a * Scalar<T>(T(b)); }
template <class T, detail::number N>
Scalar<T> operator*(N a, const Scalar<T>& b) { return Scalar<T>(T(a)) * b; }
template <class T, detail::number N>
Scalar<T> operator/(const Scalar<T>& a, N b) { return a / Scalar<T>(T(b)); }
template <class T, detail::number N>
Scalar<T> operator/(N a, const Scalar<T>& b) { return Scalar<T>(T(a)) / b; }

template <class T>
Scalar<T> operator-(const Scalar<T>& a) { return detail::scalar_unary<math::Negate>(a); }
template <class T>
Scalar<T> square(const Scalar<T>& a) { return detail::scalar_unary<math::Square>(a); }
template <class T>
Scalar<T> sqrt(const Scalar<T>& a) { return detail::scalar_unary<math::Sqrt>(a); }
template <class T>
Scalar<T> abs(const Scalar<T>& a) { return detail::scalar_unary<math::Abs>(a); }
template <class T>
Scalar<T> exp(const Scalar<T>& a) { return detail::scalar_unary<math::Exp>(a); }
template <class T>
Scalar<T> log(const Scalar<T>& a) { return detail::scalar_unary<math::Log>(a); }

}}  // namespace strata::STRATA_ABI
