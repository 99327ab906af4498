// Arithmetic on scalars, to combine losses:
//
//     auto loss = mse(prediction, target) + 0.1f * mean(abs(prediction));
#pragma once

#include <type_traits>

#include "strata/autograd/device_expression.hpp"
#include "strata/autograd/variable.hpp"
#include "strata/math/functions.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Adds g to the gradient of a number, which lies where the number does.
template <class T>
void add_gradient(Tape& tape, const Scalar<T>& number, T g) {
  const auto& there = number.there();
  if (there == nullptr) {
    if (const auto target = tape.target<T>(number.id()))
      *target.data = target.accumulate ? *target.data + g : g;
  } else if (const auto target = tape.target<float>(number.id())) {  // its neighbour is of the host
    float sum = 0;
    if (target.accumulate) there->gpu().download(&sum, target.data, sizeof sum);
    sum += float(g);
    there->gpu().upload(target.data, &sum, sizeof sum);
  }
}

/// Function of numbers of which at least one is on an accelerator, and those of the host are constants: there.
template <class Function, class T, class... Numbers>
Scalar<T> compute_there(Accelerator& gpu, Tape* tape, const Numbers&... numbers) {
  DeviceExpression made(gpu, 1);
  const auto push = [&](const Scalar<T>& number) {
    if (number.there() != nullptr)
      made.push_leaf(number.there()->data(), number.id());
    else
      made.program.push_constant(float(number.item()));
  };
  (push(numbers), ...);
  made.push(Function{});
  const Storage place = gpu.pool().take(sizeof(float));
  gpu.expression_forward(made.program, 1, static_cast<float*>(place.data()));
  Scalar<T> y(place, tape);
  const auto belongs = [&](const Scalar<T>& number) {
    if (number.there() != nullptr) y.there()->add_part(number.there());
  };
  if (tape != nullptr) (belongs(numbers), ...);  // nobody goes back from others: they need not live as long
  if (tape != nullptr)
    tape->record(y.id(), [made = std::move(made), y, ... kept = numbers](Tape& t) {
      made.backward(t, {.values = t.gradient<float>(y.id())});
    });
  return y;
}

template <class Function, class T>
Scalar<T> scalar_unary(const Scalar<T>& a) {
  if (a.there() != nullptr) return compute_there<Function, T>(a.there()->gpu(), a.tape(), a);
  Scalar<T> y(Function::value(a.item()), a.tape());
  if (y.tape() != nullptr)
    y.tape()->record(y.id(), [a, y](Tape& tape) {
      add_gradient(tape, a, *tape.gradient<T>(y.id()) * Function::derivative(a.item(), y.item()));
    });
  return y;
}

template <class Function, class T>
Scalar<T> scalar_binary(const Scalar<T>& a, const Scalar<T>& b) {
  Tape* const tape = common_tape(a, b);
  if (a.there() != nullptr || b.there() != nullptr) {
    const auto stays = [](const Scalar<T>& x) { return x.there() != nullptr || x.id() < 0; };
    Accelerator& gpu = (a.there() != nullptr ? a : b).there()->gpu();
    if (stays(a) && stays(b) &&
        (a.there() == nullptr || b.there() == nullptr || &a.there()->gpu() == &b.there()->gpu()))
      return compute_there<Function, T>(gpu, tape, a, b);
  }
  Scalar<T> y(Function::value(a.item(), b.item()), tape);
  if (y.tape() != nullptr)
    y.tape()->record(y.id(), [a, b, y](Tape& t) {
      T ga, gb;
      Function::backward(a.item(), b.item(), y.item(), *t.gradient<T>(y.id()), ga, gb);
      add_gradient(t, a, ga);
      add_gradient(t, b, gb);
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
