// Adam and AdamW, as torch.optim.Adam and torch.optim.AdamW (formulas: cpu/optimizer.hpp).
//
//     st::Adam adam(net, {.lr = 1e-3});
//     st::AdamW adamw(net, {.lr = 1e-3, .weight_decay = 0.05});
//     st::AdamW other(net, {.lr = 1e-3, .weight_decay = 0.05}, {{.when = st::biases_and_norms, .weight_decay = 0}});
//
// Adam adds weight_decay * w to the gradient; AdamW shrinks the weights by lr * weight_decay instead.
#pragma once

#include <array>

#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct AdamOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};  ///< both in [0, 1)
  double eps = 1e-8;                           ///< at least 0
  double weight_decay = 0;                     ///< at least 0
  /// Whether step() passes over trainable parameters that got no gradient; else that is an Error.
  bool allow_unused = false;
};

struct AdamWOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;
  bool allow_unused = false;
};

namespace detail {

template <class Options>
class AdamBase : public Optimizer {
 public:
  static constexpr bool decoupled = std::is_same_v<Options, AdamWOptions>;
  static constexpr std::string_view name = decoupled ? "AdamW" : "Adam";

  /// Throws ValueError for options out of their range and for a network without parameters.
  template <class Net>
  explicit AdamBase(Net& net, const Options& options = {}, const std::vector<ParameterGroup>& groups = {})
      : Optimizer(net, name, options.lr, options.weight_decay, options.allow_unused, groups), options_(options),
        on_device_(settings().size()), moments_(parameter_slots().size()) {
    for (const double beta : options.betas) check_option(beta >= 0 && beta < 1, name, "a beta", beta, "[0, 1)");
    check_option(finite_and_not_negative(options.eps), name, "eps", options.eps, "a number of at least 0");
  }

  /// Changes every trainable parameter by its gradient. Throws Error, naming the parameter, when one got no gradient;
  /// then none is changed.
  void step() {
    update_parameters(
        [&](std::size_t i, const AnyTensor& value) {
          return empty_or_like(moments_[i].first, value) && empty_or_like(moments_[i].second, value);
        },
        [&]<class T>(std::size_t i, Tensor<T>& value, Tensor<T>& grad) {
          Moments& moments = moments_[i];
          const Slot& slot = parameter_slots()[i];
          for (AnyTensor* moment : {&moments.first, &moments.second}) {
            const bool fresh = shape_of(*moment) != value.shape();
            Tensor<T>& state = state_beside(*moment, value);
            if (fresh) fill(state, T(0));
          }
          ++moments.steps;
          T *first = std::get<Tensor<T>>(moments.first).data(), *second = std::get<Tensor<T>>(moments.second).data();
          dispatch<T>(
              value.device(),
              [&] {
                cpu::adam_update(value.size(), value.data(), grad.data(), first, second,
                                 numbers(settings_of(slot), moments.steps));
              },
              [&](auto& gpu) {
                on_device_[slot.settings].add(gpu.device(), {.size = value.size(),
                                                             .value = value.data(),
                                                             .gradient = grad.data(),
                                                             .state1 = first,
                                                             .state2 = second,
                                                             .step = moments.steps});
              });
        });
    flush_all(on_device_, [&](Accelerator& gpu, std::span<const TensorUpdate> tensors, std::size_t s) {
      gpu.adam_update(tensors, numbers(settings()[s], 1));
    });
  }

  static constexpr std::string_view state_name = decoupled ? "adamw" : "adam";
  static void state(auto& self, auto&& f) {
    f("lr", self.lr_);
    for (std::size_t i = 0; i < self.parameter_slots().size(); ++i) {
      const std::string& parameter = self.parameter_slots()[i].name;
      const AnyTensor& like = self.parameter_slots()[i].parameter->any_value();
      f(parameter + ".steps", self.moments_[i].steps);
      f(parameter + ".exp_avg", self.moments_[i].first, like);
      f(parameter + ".exp_avg_sq", self.moments_[i].second, like);
    }
  }

 private:
  AdamUpdate numbers(const Settings& settings, std::int64_t step) const {
    return {.lr = lr_ * settings.lr_factor, .beta1 = options_.betas[0], .beta2 = options_.betas[1], .eps = options_.eps,
            .weight_decay = settings.weight_decay, .decoupled = decoupled, .step = step};
  }

  struct Moments {
    AnyTensor first, second;  // shape (0) until the first step
    std::int64_t steps = 0;   // each parameter's own, as in PyTorch: one that was frozen starts late
  };

  Options options_;
  DeviceBatches<TensorUpdate> on_device_;
  std::vector<Moments> moments_;
};

}  // namespace detail

class Adam : public detail::AdamBase<AdamOptions> {
 public:
  using AdamBase::AdamBase;
};

class AdamW : public detail::AdamBase<AdamWOptions> {
 public:
  using AdamBase::AdamBase;
};

}}  // namespace strata::STRATA_ABI
