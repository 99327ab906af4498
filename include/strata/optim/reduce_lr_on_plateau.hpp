// Lowers the learning rate when a measured number, the validation loss for example, no longer improves, as
// torch.optim.lr_scheduler.ReduceLROnPlateau.
//
//     st::ReduceLROnPlateau scheduler(adam, {.factor = 0.5, .patience = 5});
//     for (...) { train_one_epoch(); scheduler.step(validation_loss()); }
//
// Unlike the schedules of optim/lr_scheduler.hpp it is no function of the step. What it remembers goes into a
// checkpoint with the optimiser, which keeps the learning rate itself.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Which numbers are better: lower (a loss) or higher (PSNR, accuracy).
enum class PlateauMode { min, max };
/// What a threshold is a part of: of the best number so far, or of nothing, in the number's own units.
enum class ThresholdMode { rel, abs };

struct ReduceLROnPlateauOptions {
  PlateauMode mode = PlateauMode::min;
  double factor = 0.1;          ///< in (0, 1): what the learning rate is multiplied by
  std::int64_t patience = 10;   ///< steps without improvement that are let pass; the one after them lowers it
  double threshold = 1e-4;      ///< at least 0: how much better than the best an improvement is
  ThresholdMode threshold_mode = ThresholdMode::rel;
  std::int64_t cooldown = 0;    ///< steps after it was lowered that are not counted
  double min_lr = 0;            ///< it is not lowered below this
  double eps = 1e-8;            ///< a change of no more than this is left out
};

class ReduceLROnPlateau {
 public:
  /// The optimiser must outlive it. Throws ValueError for options out of their range.
  explicit ReduceLROnPlateau(Optimizer& optimizer, const ReduceLROnPlateauOptions& options = {})
      : optimizer_(&optimizer), options_(options) {
    constexpr std::string_view who = "ReduceLROnPlateau";
    using detail::check_option;
    check_option(options.factor > 0 && options.factor < 1, who, "factor", options.factor, "(0, 1)");
    check_option(options.patience >= 0, who, "patience", double(options.patience), "at least 0");
    check_option(options.cooldown >= 0, who, "cooldown", double(options.cooldown), "at least 0");
    for (const auto& [name, value] : {std::pair("threshold", options.threshold), std::pair("min_lr", options.min_lr),
                                      std::pair("eps", options.eps)})
      check_option(detail::finite_and_not_negative(value), who, name, value, "a number of at least 0");
  }

  /// Looks at the number measured after an epoch, and lowers the learning rate when it is time. Throws NumericError for
  /// one that is not finite; then nothing changes.
  void step(double metric) {
    if (!std::isfinite(metric))
      throw NumericError(concat("ReduceLROnPlateau::step: the metric is ", metric, ", wanted a finite number"));
    if (step_ == 0 || better(metric)) {
      best_ = metric;
      bad_steps_ = 0;
    } else {
      ++bad_steps_;
    }
    ++step_;
    if (cooldown_left_ > 0) {
      --cooldown_left_;
      bad_steps_ = 0;
    }
    if (bad_steps_ <= options_.patience) return;
    const double lower = std::max(optimizer_->lr() * options_.factor, options_.min_lr);
    if (optimizer_->lr() - lower > options_.eps) optimizer_->set_lr(lower);
    cooldown_left_ = options_.cooldown;
    bad_steps_ = 0;
  }

  std::int64_t step_count() const { return step_; }
  double lr() const { return optimizer_->lr(); }
  /// The best metric so far, 0 before the first step.
  double best() const { return best_; }

  static constexpr std::string_view state_name = "reduce_lr_on_plateau";
  static void state(auto& self, auto&& f) {
    f("step", self.step_);
    f("best", self.best_);
    f("bad_steps", self.bad_steps_);
    f("cooldown_left", self.cooldown_left_);
  }

 private:
  bool better(double metric) const {
    const bool relative = options_.threshold_mode == ThresholdMode::rel;
    if (options_.mode == PlateauMode::min)
      return metric < (relative ? best_ * (1 - options_.threshold) : best_ - options_.threshold);
    return metric > (relative ? best_ * (1 + options_.threshold) : best_ + options_.threshold);
  }

  Optimizer* optimizer_;
  ReduceLROnPlateauOptions options_;
  double best_ = 0;
  std::int64_t step_ = 0, bad_steps_ = 0, cooldown_left_ = 0;
};

}}  // namespace strata::STRATA_ABI
