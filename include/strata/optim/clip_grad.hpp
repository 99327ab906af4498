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

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// The first parameter on an accelerator whose gradient is not finite.
template <class Net>
std::string first_not_finite(Net& net) {
  std::string found;
  for_each_parameter(net, [&](const std::string& name, Parameter& parameter) {
    if (!found.empty() || !parameter.has_grad() || !on_accelerator(parameter.device())) return;
    const TensorSpan gradient{parameter.size(), parameter.grad().data()};
    if (!std::isfinite(accelerator(parameter.device()).sum_of_squares({&gradient, 1}))) found = name;
  });
  return found;
}

/// Calls change(accelerator, spans) with all gradients on one, and on_cpu(size, data) for those of the CPU.
template <class Net, class OnCpu, class OnDevice>
void change_gradients(Net& net, OnCpu&& on_cpu, OnDevice&& on_device) {
  DeviceBatch<TensorSpan> batch;
  for_each_parameter(net, [&](const std::string&, Parameter& parameter) {
    if (parameter.has_grad())
      with_value_and_grad(parameter, [&]<class T>(auto&, Tensor<T>& grad) {
        dispatch<T>(
            grad.device(), [&] { on_cpu(grad.size(), grad.data()); },
            [&](auto& gpu) { batch.add(gpu.device(), {grad.size(), grad.data()}); });
      });
  });
  batch.flush(on_device);
}

}  // namespace detail

/// The 2-norm of all gradients together, summed in double in a fixed order. Parameters without a gradient are passed
/// over. Throws NumericError, naming the first parameter at fault, when it is not finite.
template <class Net>
double grad_norm(Net& net) {
  double total = 0;
  detail::DeviceBatch<TensorSpan> on_device;
  for_each_parameter(net, [&](const std::string& name, Parameter& parameter) {
    if (!parameter.has_grad()) return;
    detail::with_value_and_grad(parameter, [&]<class T>(auto&, Tensor<T>& grad) {
      detail::dispatch<T>(
          grad.device(), [&] { total += cpu::sum_of_squares(grad.size(), grad.data()); },
          [&](auto& gpu) { on_device.add(gpu.device(), {grad.size(), grad.data()}); });
    });
    if (!std::isfinite(total)) throw NumericError(concat("grad_norm: the gradient of '", name, "' is not finite"));
  });
  on_device.flush([&](Accelerator& gpu, std::span<const TensorSpan> tensors) { total = gpu.sum_of_squares(tensors); });
  if (!std::isfinite(total))
    throw NumericError(concat("grad_norm: the gradient of '", detail::first_not_finite(net), "' is not finite"));
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
    detail::change_gradients(
        net, [&](std::int64_t size, auto* data) { cpu::scale(size, data, factor); },
        [&](Accelerator& gpu, std::span<const TensorSpan> tensors) { gpu.scale(tensors, factor); });
  return norm;
}

/// Limits every element of every gradient to [-limit, limit]. Throws ValueError unless limit is positive.
template <class Net>
void clip_grad_value_(Net& net, double limit) {
  detail::check_option(limit > 0, "clip_grad_value_", "limit", limit, "a positive number");
  detail::change_gradients(
      net, [&](std::int64_t size, auto* data) { cpu::clamp(size, data, limit); },
      [&](Accelerator& gpu, std::span<const TensorSpan> tensors) { gpu.clamp(tensors, limit); });
}

}}  // namespace strata::STRATA_ABI
