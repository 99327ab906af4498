// What losses that are computed on the host, by loops of their own, have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Throws DeviceError where x is on an accelerator, ShapeError where it is empty.
template <class X>
void check_host_loss(const char* who, const X& x) {
  if (on_accelerator(x.device()))
    throw DeviceError(concat(who, ": the images are on ", x.device().str(),
                             ", and this loss runs on the CPU only: bring them to "
                             "the host, or train with another loss there"));
  if (x.size() == 0) throw ShapeError(concat(who, ": the images are empty"));
}

/// A target that is a constant. Throws Error for one that a gradient would have to flow into.
template <class X>
auto constant_target(const char* who, const X& target) {
  const auto t = as_var(target);
  if (t.id() >= 0)
    throw Error(
        concat(who, ": no gradient flows into its target: give x.value() where the target is computed in the pass"));
  return t.value();
}

inline void check_same_shape(const char* who, const Shape& prediction, const Shape& target) {
  if (prediction != target)
    throw ShapeError(concat(who, ": the prediction has shape ", prediction.str(), ", the target ", target.str()));
}

/// sum of term(i) for i in [0, count), in a fixed order for any number of threads. Each term is the sum of something
/// large.
template <class Term>
double sum_of_terms(std::int64_t count, Term&& term) {
  std::vector<double> terms(static_cast<std::size_t>(count));
  parallel_ranges(count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) terms[std::size_t(i)] = term(i);
  });
  double total = 0;
  for (const double value : terms) total += value;
  return total;
}

/// The loss `value`, whose way back is add(g, dx): adds g times its gradient for x to, or writes it into, dx.
template <class X, class Add, class... Reads>
auto host_loss(const X& x, double value, Add add, const Reads&... reads) {
  using T = typename X::value_type;
  Scalar<T> loss(T(value), x.tape());
  if (loss.tape() != nullptr)
    loss.tape()->record(
        loss.id(),
        [x_id = x.id(), id = loss.id(), add = std::move(add)](Tape& tape) {
          const double g = double(*tape.gradient<T>(id));
          if (const auto dx = tape.target<T>(x_id)) add(g, dx);
        },
        x, reads...);
  return loss;
}

}  // namespace strata::inline STRATA_ABI::detail
