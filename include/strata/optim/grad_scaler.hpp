// Dynamic loss scaling for training in half precision, as torch.amp.GradScaler. Gradients are small numbers, and fp16
// rounds what is below 6e-8 to zero; so the loss is multiplied by a large scale before it goes back, and the gradients
// are divided by it before the optimiser sees them. Where a gradient came out infinite or NaN the step is left out and
// the scale falls; after a row of good steps it rises again.
//
//     st::GradScaler scaler;
//     st::Train pass({.precision = st::Precision::fp16});
//     auto loss = mse(net(pass, noisy), clean);
//     adam.zero_grad();
//     pass.backward(scaler.scale(loss));
//     if (scaler.unscale_(adam)) st::clip_grad_norm_(net, 1.0);   // only where gradients are looked at before the step
//     scaler.step(adam);
//     scaler.update();
//
// A scaler that is not enabled changes nothing and has no state, so that one program serves every precision. A
// checkpoint keeps the scale and the count of good steps: save_checkpoint(path, info, net, adam, scaler).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "strata/autograd/scalar.hpp"
#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct GradScalerOptions {
  double init_scale = 65536;            ///< above 0
  double growth_factor = 2;             ///< above 1: the scale is multiplied by it
  /// between 0 and 1: and by this after a step with gradients that are not finite
  double backoff_factor = 0.5;
  std::int64_t growth_interval = 2000;  ///< good steps in a row before it grows; at least 1
  bool enabled = true;
};

class GradScaler {
 public:
  /// Throws ValueError for options out of their range.
  explicit GradScaler(const GradScalerOptions& options = {}) : options_(options), scale_(options.init_scale) {
    const std::string_view who = "GradScaler";
    detail::check_option(std::isfinite(scale_) && scale_ > 0, who, "init_scale", scale_, "a number above 0");
    detail::check_option(std::isfinite(options.growth_factor) && options.growth_factor > 1, who, "growth_factor",
                         options.growth_factor, "a number above 1");
    detail::check_option(options.backoff_factor > 0 && options.backoff_factor < 1, who, "backoff_factor",
                         options.backoff_factor, "(0, 1)");
    detail::check_option(options.growth_interval >= 1, who, "growth_interval", double(options.growth_interval),
                         "at least 1");
  }

  bool enabled() const { return options_.enabled; }
  /// What the loss is multiplied by now; 1 when not enabled.
  double scale() const { return enabled() ? scale_ : 1; }
  /// Good steps since the scale last changed.
  std::int64_t growth_tracker() const { return growth_tracker_; }

  /// loss * scale. Where that is no number any more and the loss is one, the scale falls at once; on an accelerator,
  /// where nobody has looked at the loss, the gradients will show it.
  template <class T>
  Scalar<T> scale(const Scalar<T>& loss) {
    if (!enabled()) return loss;
    while (loss.there() == nullptr && std::isfinite(loss.item()) && !std::isfinite(loss.item() * T(scale_))) back_off();
    return loss * T(scale_);
  }

  /// Divides the gradients of the optimiser's parameters by the scale, and says whether all are finite. On a device
  /// they count as such up to a norm of 1.8e19. Once between two updates: a second call is an Error.
  bool unscale_(Optimizer& optimizer) {
    if (!enabled()) return true;
    Seen& seen = of(optimizer);
    if (seen.unscaled)
      throw Error(
          "GradScaler::unscale_: the gradients of this optimiser are unscaled already; call update() after each step");
    const double factor = 1 / scale_;
    double squares = 0;
    bool any = false;
    detail::DeviceBatch<TensorSpan> on_device;
    optimizer.each_parameter([&](const std::string&, Parameter& parameter) {
      if (!parameter.has_grad()) return;
      any = true;
      detail::with_value_and_grad(parameter, [&]<class T>(auto&, Tensor<T>& grad) {
        detail::dispatch<T>(
            grad.device(),
            [&] {
              cpu::scale(grad.size(), grad.data(), factor);
              squares += cpu::sum_of_squares(grad.size(), grad.data());
            },
            [&](auto& gpu) { on_device.add(gpu.device(), {grad.size(), grad.data()}); });
      });
    });
    on_device.flush([&](Accelerator& gpu, std::span<const TensorSpan> tensors) {
      gpu.scale(tensors, factor);
      squares += gpu.sum_of_squares(tensors);
    });
    if (!any) throw Error("GradScaler::unscale_: no parameter of this optimiser has a gradient; call backward first");
    seen.unscaled = true;
    seen.finite = std::isfinite(squares);
    return seen.finite;
  }

  /// optimizer.step() with gradients that were scaled, unless one of them is not finite. Returns whether it was done.
  template <class AnyOptimizer>
  bool step(AnyOptimizer& optimizer) {
    if (enabled()) {
      if (of(optimizer).stepped)
        throw Error("GradScaler::step: called twice for this optimiser; call update() after each step");
      if (!of(optimizer).unscaled) unscale_(optimizer);
      of(optimizer).stepped = true;
      if (!of(optimizer).finite) return false;
    }
    optimizer.step();
    return true;
  }

  /// Adapts the scale to what the steps since the last update found. Throws Error when there was none, and NumericError
  /// when the scale has fallen so far that it cannot be what makes gradients infinite.
  void update() {
    if (!enabled()) return;
    if (std::none_of(seen_.begin(), seen_.end(), [](const Seen& seen) { return seen.unscaled; }))
      throw Error("GradScaler::update: no gradients were looked at since the last update; call step() first");
    const bool finite =
        std::all_of(seen_.begin(), seen_.end(), [](const Seen& seen) { return !seen.unscaled || seen.finite; });
    seen_.clear();
    found(finite);
  }

  /// update() after a step that was done elsewhere, whose gradients came out finite or not.
  void found(bool finite) {
    if (!finite) {
      back_off();
    } else if (++growth_tracker_ == options_.growth_interval) {
      growth_tracker_ = 0;
      if (std::isfinite(float(scale_ * options_.growth_factor))) scale_ *= options_.growth_factor;
    }
  }

  static constexpr std::string_view state_name = "grad_scaler";
  static void state(auto& self, auto&& f) {
    if (!self.enabled()) return;
    f("scale", self.scale_);
    f("growth_tracker", self.growth_tracker_);
  }

 private:
  struct Seen {
    const Optimizer* optimizer;
    bool unscaled = false, finite = true, stepped = false;
  };
  Seen& of(const Optimizer& optimizer) {
    for (Seen& seen : seen_)
      if (seen.optimizer == &optimizer) return seen;
    return seen_.emplace_back(Seen{&optimizer});
  }
  void back_off() {
    scale_ *= options_.backoff_factor;
    growth_tracker_ = 0;
    if (scale_ < 0x1p-60)
      throw NumericError(
          concat("GradScaler: gradients are not finite at a scale of ", scale_,
                 " either, so it is not half precision that overflows: look for the first layer whose output is not "
                 "finite, or lower the learning rate"));
  }

  GradScalerOptions options_;
  double scale_;
  std::int64_t growth_tracker_ = 0;
  std::vector<Seen> seen_;  // since the last update
};

}}  // namespace strata::STRATA_ABI
