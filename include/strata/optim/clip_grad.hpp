// Limits gradients between backward and step, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_.
//
//     pass.backward(loss);
//     double norm = st::clip_grad_norm_(net, 1.0);
//     sgd.step();
#pragma once

#include <algorithm>
#include <cmath>

#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata::inline STRATA_ABI {

/// The 2-norm of all gradients together, summed in double in a fixed order. Parameters without a gradient are passed
/// over. Throws NumericError, naming the first parameter at fault, when it is not finite.
template <class Net>
double grad_norm(Net& net) {
  double total = 0;
  for_each_parameter(net, [&](const std::string& name, Parameter& parameter) {
    if (!parameter.has_grad()) return;
    detail::with_value_and_grad(parameter,
                                [&](auto&, auto& grad) { total += cpu::sum_of_squares(grad.size(), grad.data()); });
    if (!std::isfinite(total)) throw NumericError(concat("grad_norm: the gradient of '", name, "' is not finite"));
  });
  return std::sqrt(total);
}

/// Scales all gradients by max_norm / (norm + 1e-6) when that is below 1, and returns the norm before. Throws
/// ValueError unless max_norm is positive, NumericError when the norm is not finite; then no gradient is changed.
template <class Net>
double clip_grad_norm_(Net& net, double max_norm) {
  detail::check_option(max_norm > 0, "clip_grad_norm_", "max_norm", max_norm, "a positive number");
  const double norm = grad_norm(net);
  const double factor = max_norm / (norm + 1e-6);
  if (factor < 1)
    for_each_parameter(net, [&](const std::string&, Parameter& parameter) {
      if (parameter.has_grad())
        detail::with_value_and_grad(parameter,
                                    [&](auto&, auto& grad) { cpu::scale(grad.size(), grad.data(), factor); });
    });
  return norm;
}

/// Limits every element of every gradient to [-limit, limit]. Throws ValueError unless limit is positive.
template <class Net>
void clip_grad_value_(Net& net, double limit) {
  detail::check_option(limit > 0, "clip_grad_value_", "limit", limit, "a positive number");
  for_each_parameter(net, [&](const std::string&, Parameter& parameter) {
    if (parameter.has_grad())
      detail::with_value_and_grad(parameter, [&](auto&, auto& grad) { cpu::clamp(grad.size(), grad.data(), limit); });
  });
}

}  // namespace strata::inline STRATA_ABI
