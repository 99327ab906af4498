// RMSprop, as torch.optim.RMSprop (formula: cpu/optimizer.hpp): the gradient over the root of a moving average of its
// squares.
//
//     st::RMSprop rmsprop(net, {.lr = 1e-3, .momentum = 0.9});
#pragma once

#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct RMSpropOptions {
  double lr = 1e-2;
  double alpha = 0.99;      ///< in [0, 1): how much of the average of the squares is kept at each step
  double eps = 1e-8;        ///< at least 0
  double weight_decay = 0;  ///< at least 0; added to the gradient, times the weight
  double momentum = 0;      ///< in [0, 1)
  bool centered = false;    ///< whether the gradient's variance is divided by instead of its square
  /// Whether step() passes over trainable parameters that got no gradient; else that is an Error.
  bool allow_unused = false;
};

class RMSprop : public Optimizer {
 public:
  /// Throws ValueError for options out of their range and for a network without parameters.
  template <class Net>
  explicit RMSprop(Net& net, const RMSpropOptions& options = {}, const std::vector<ParameterGroup>& groups = {})
      : Optimizer(net, "RMSprop", options.lr, options.weight_decay, options.allow_unused, groups), options_(options),
        on_device_(settings().size()), averages_(parameter_slots().size()) {
    using detail::check_option;
    check_option(options.alpha >= 0 && options.alpha < 1, "RMSprop", "alpha", options.alpha, "[0, 1)");
    check_option(detail::finite_and_not_negative(options.eps), "RMSprop", "eps", options.eps, "a number of at least 0");
    check_option(options.momentum >= 0 && options.momentum < 1, "RMSprop", "momentum", options.momentum, "[0, 1)");
  }

  /// Changes every trainable parameter by its gradient. Throws Error, naming the parameter, when one got no gradient;
  /// then none is changed.
  void step() {
    update_parameters(
        [&](std::size_t i, const AnyTensor& value) {
          return detail::empty_or_like(averages_[i].square, value) &&
                 detail::empty_or_like(averages_[i].gradient, value) &&
                 detail::empty_or_like(averages_[i].momentum, value);
        },
        [&]<class T>(std::size_t i, Tensor<T>& value, Tensor<T>& grad) {
          const auto data_of = [&](AnyTensor& state) {
            const bool fresh = detail::shape_of(state) != value.shape();
            Tensor<T>& tensor = detail::state_beside(state, value);
            if (fresh) fill(tensor, T(0));
            return tensor.data();
          };
          Averages& averages = averages_[i];
          T* const square = data_of(averages.square);
          T* const gradient = options_.centered ? data_of(averages.gradient) : nullptr;
          T* const momentum = options_.momentum > 0 ? data_of(averages.momentum) : nullptr;
          const Slot& slot = parameter_slots()[i];
          detail::dispatch<T>(
              value.device(),
              [&] {
                cpu::rmsprop_update<T>(value.size(), value.data(), grad.data(), square, gradient, momentum,
                                       numbers(settings_of(slot)));
              },
              [&](auto& gpu) {
                on_device_[slot.settings].add(gpu.device(), {.size = value.size(),
                                                             .value = value.data(),
                                                             .gradient = grad.data(),
                                                             .state1 = square,
                                                             .state2 = gradient,
                                                             .state3 = momentum});
              });
        });
    flush_all(on_device_, [&](Accelerator& gpu, std::span<const TensorUpdate> tensors, std::size_t s) {
      gpu.rmsprop_update(tensors, numbers(settings()[s]));
    });
  }

  static constexpr std::string_view state_name = "rmsprop";
  static void state(auto& self, auto&& f) {
    f("lr", self.lr_);
    for (std::size_t i = 0; i < self.parameter_slots().size(); ++i) {
      const std::string& parameter = self.parameter_slots()[i].name;
      const AnyTensor& like = self.parameter_slots()[i].parameter->any_value();
      f(parameter + ".square_avg", self.averages_[i].square, like);
      f(parameter + ".grad_avg", self.averages_[i].gradient, like);
      f(parameter + ".momentum_buffer", self.averages_[i].momentum, like);
    }
  }

 private:
  struct Averages {
    AnyTensor square, gradient, momentum;  // shape (0) until the first step, and where the options want none
  };

  RmspropUpdate numbers(const Settings& settings) const {
    return {.lr = lr_ * settings.lr_factor,
            .alpha = options_.alpha,
            .eps = options_.eps,
            .weight_decay = settings.weight_decay,
            .momentum = options_.momentum};
  }

  RMSpropOptions options_;
  detail::DeviceBatches<TensorUpdate> on_device_;
  std::vector<Averages> averages_;
};

}}  // namespace strata::STRATA_ABI
