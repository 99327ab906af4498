// Stochastic gradient descent with momentum, as torch.optim.SGD:
//
//     g += weight_decay * w;   v = momentum * v + (1 - dampening) * g   (first step: v = g);   w -= lr * v
//     nesterov:                                                              w -= lr * (g + momentum * v)
//
//     st::SGD sgd(net, {.lr = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
//
// The learning rate is not folded into the velocity: the two forms differ as soon as a schedule changes it.
#pragma once

#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;      ///< in [0, 1)
  double dampening = 0;     ///< in [0, 1]
  double weight_decay = 0;  ///< at least 0
  bool nesterov = false;    ///< needs momentum above 0 and dampening 0
  /// Whether step() passes over trainable parameters that got no gradient; else that is an Error.
  bool allow_unused = false;
};

class SGD : public Optimizer {
 public:
  /// Throws ValueError for options out of their range and for a network without parameters.
  template <class Net>
  explicit SGD(Net& net, const SGDOptions& options = {}, const std::vector<ParameterGroup>& groups = {})
      : Optimizer(net, "SGD", options.lr, options.weight_decay, options.allow_unused, groups), options_(options),
        on_device_(settings().size()), velocity_(parameter_slots().size()) {
    using detail::check_option;
    check_option(options.momentum >= 0 && options.momentum < 1, "SGD", "momentum", options.momentum, "[0, 1)");
    check_option(options.dampening >= 0 && options.dampening <= 1, "SGD", "dampening", options.dampening, "[0, 1]");
    if (options.nesterov && (options.momentum == 0 || options.dampening != 0))
      throw ValueError("SGD: nesterov wants a momentum above 0 and a dampening of 0");
  }

  /// Changes every trainable parameter by its gradient. Throws Error, naming the parameter, when one got no gradient;
  /// then none is changed.
  void step() {
    update_parameters(
        [&](std::size_t i, const AnyTensor& value) { return detail::empty_or_like(velocity_[i], value); },
        [&]<class T>(std::size_t i, Tensor<T>& value, Tensor<T>& grad) {
          const Slot& slot = parameter_slots()[i];
          cpu::SgdUpdate update = numbers(settings_of(slot));
          T* velocity = nullptr;
          if (options_.momentum != 0) {
            update.first = detail::shape_of(velocity_[i]) != value.shape();
            velocity = detail::state_beside(velocity_[i], value).data();
          }
          detail::dispatch<T>(
              value.device(), [&] { cpu::sgd_update(value.size(), value.data(), grad.data(), velocity, update); },
              [&](auto& gpu) {
                on_device_[slot.settings].add(gpu.device(), {.size = value.size(),
                                                             .value = value.data(),
                                                             .gradient = grad.data(),
                                                             .state1 = velocity,
                                                             .first = update.first});
              });
        });
    flush_all(on_device_, [&](Accelerator& gpu, std::span<const TensorUpdate> tensors, std::size_t s) {
      gpu.sgd_update(tensors, numbers(settings()[s]));
    });
  }

  static constexpr std::string_view state_name = "sgd";
  static void state(auto& self, auto&& f) {
    f("lr", self.lr_);
    for (std::size_t i = 0; i < self.parameter_slots().size(); ++i)
      f(self.parameter_slots()[i].name + ".velocity", self.velocity_[i],
        self.parameter_slots()[i].parameter->any_value());
  }

 private:
  cpu::SgdUpdate numbers(const Settings& settings) const {
    return {.lr = lr_ * settings.lr_factor, .momentum = options_.momentum, .dampening = options_.dampening,
            .weight_decay = settings.weight_decay, .nesterov = options_.nesterov};
  }

  SGDOptions options_;
  detail::DeviceBatches<TensorUpdate> on_device_;
  std::vector<AnyTensor> velocity_;  // shape (0) until a parameter's first step
};

}}  // namespace strata::STRATA_ABI
