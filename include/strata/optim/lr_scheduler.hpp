// Learning-rate schedules, PyTorch's closed forms. A schedule is a small aggregate that gives the learning rate at a
// step counted from 0; a Scheduler counts the steps and sets the optimiser's learning rate.
//
//     st::MultiStepLR scheduler(sgd, {.milestones = {50, 70}, .gamma = 0.1});
//     for (...) { train_one_epoch(); scheduler.step(); }
//
// Warm-up goes first in a sequence; each schedule counts from 0 when its turn comes:
//
//     st::SequentialLR scheduler(sgd, {.schedules = {st::LinearSchedule{.start_factor = 0.01, .total_iters = 5},
//                                                    st::CosineAnnealingSchedule{.t_max = 95}},
//                                      .milestones = {5}});
//
// Whether a step is an epoch or a batch is the caller's choice. The learning rate is a function of the step and of the
// optimiser's learning rate when the scheduler was made: a set_lr in between lasts until the next step().
// A schedule of one's own is any type with double operator()(double base_lr, std::int64_t step) const:
// st::Scheduler scheduler(sgd, Mine{...}). What looks at a measured number is in optim/reduce_lr_on_plateau.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numbers>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

inline void check_milestones(std::string_view who, const std::vector<std::int64_t>& milestones) {
  for (std::size_t i = 0; i < milestones.size(); ++i)
    if (milestones[i] < 0 || (i > 0 && milestones[i] <= milestones[i - 1]))
      throw ValueError(concat(who, ": milestones are not negative and ascend; number ", i, " is ", milestones[i]));
}
inline std::int64_t passed(const std::vector<std::int64_t>& milestones, std::int64_t step) {
  return std::upper_bound(milestones.begin(), milestones.end(), step) - milestones.begin();
}

}  // namespace detail

/// base * gamma^(step / step_size), the quotient rounded down.
struct StepSchedule {
  std::int64_t step_size = 30;
  double gamma = 0.1;

  double operator()(double base, std::int64_t step) const {
    if (step_size < 1) throw ValueError(concat("StepLR: step_size is ", step_size, ", wanted at least 1"));
    return base * std::pow(gamma, double(step / step_size));
  }
};

/// base * gamma^(number of milestones reached).
struct MultiStepSchedule {
  std::vector<std::int64_t> milestones;
  double gamma = 0.1;

  double operator()(double base, std::int64_t step) const {
    detail::check_milestones("MultiStepLR", milestones);
    return base * std::pow(gamma, double(detail::passed(milestones, step)));
  }
};

/// eta_min + (base - eta_min) * (1 + cos(pi * step / t_max)) / 2 (Loshchilov and Hutter, 2017, without restarts).
/// Beyond t_max it rises again, as PyTorch's does.
struct CosineAnnealingSchedule {
  std::int64_t t_max = 0;
  double eta_min = 0;

  double operator()(double base, std::int64_t step) const {
    if (t_max < 1) throw ValueError(concat("CosineAnnealingLR: t_max is ", t_max, ", wanted at least 1"));
    return eta_min + (base - eta_min) * (1 + std::cos(std::numbers::pi * double(step) / double(t_max))) / 2;
  }
};

/// base times a factor that goes in a straight line from start_factor to end_factor in total_iters steps and stays.
struct LinearSchedule {
  double start_factor = 1.0 / 3;
  double end_factor = 1;
  std::int64_t total_iters = 5;

  double operator()(double base, std::int64_t step) const {
    if (total_iters < 1) throw ValueError(concat("LinearLR: total_iters is ", total_iters, ", wanted at least 1"));
    detail::check_option(start_factor > 0 && start_factor <= 1, "LinearLR", "start_factor", start_factor, "(0, 1]");
    detail::check_option(end_factor >= 0 && end_factor <= 1, "LinearLR", "end_factor", end_factor, "[0, 1]");
    const double part = double(std::min(step, total_iters)) / double(total_iters);
    return base * (start_factor + (end_factor - start_factor) * part);
  }
};

/// base * gamma^step.
struct ExponentialSchedule {
  double gamma = 0.95;

  double operator()(double base, std::int64_t step) const {
    detail::check_option(gamma > 0 && std::isfinite(gamma), "ExponentialLR", "gamma", gamma, "a number above 0");
    return base * std::pow(gamma, double(step));
  }
};

/// base * (1 - step / total_iters)^power, 0 from total_iters on.
struct PolynomialSchedule {
  std::int64_t total_iters = 5;
  double power = 1;

  double operator()(double base, std::int64_t step) const {
    if (total_iters < 1) throw ValueError(concat("PolynomialLR: total_iters is ", total_iters, ", wanted at least 1"));
    detail::check_option(power > 0 && std::isfinite(power), "PolynomialLR", "power", power, "a number above 0");
    return base * std::pow(1 - double(std::min(step, total_iters)) / double(total_iters), power);
  }
};

/// CosineAnnealingSchedule from its beginning again and again: after t_0 steps, then after t_mult times as many as
/// before, and so on (Loshchilov and Hutter, 2017).
struct CosineAnnealingWarmRestartsSchedule {
  std::int64_t t_0 = 0;
  std::int64_t t_mult = 1;
  double eta_min = 0;

  double operator()(double base, std::int64_t step) const {
    if (t_0 < 1) throw ValueError(concat("CosineAnnealingWarmRestarts: t_0 is ", t_0, ", wanted at least 1"));
    if (t_mult < 1) throw ValueError(concat("CosineAnnealingWarmRestarts: t_mult is ", t_mult, ", wanted at least 1"));
    std::int64_t length = t_0;
    if (t_mult == 1) step %= t_0;
    while (step >= length) {
      step -= length;
      // Where the next length would not fit in 64 bits no step reaches its end.
      length = length <= std::numeric_limits<std::int64_t>::max() / t_mult ? length * t_mult
                                                                           : std::numeric_limits<std::int64_t>::max();
    }
    return eta_min + (base - eta_min) * (1 + std::cos(std::numbers::pi * double(step) / double(length))) / 2;
  }
};

/// Up from max_lr / div_factor to max_lr in the first pct_start of the steps, and down to max_lr / (div_factor *
/// final_div_factor) at step total_steps - 1, both along half a cosine (Smith and Topin, 2018). A step is usually a
/// batch. The optimiser's own learning rate is not used, and its momentum stays as it is. Throws ValueError for a step
/// beyond total_steps.
struct OneCycleSchedule {
  double max_lr = 0;
  std::int64_t total_steps = 0;
  double pct_start = 0.3;
  double div_factor = 25;
  double final_div_factor = 1e4;

  double operator()(double, std::int64_t step) const {
    constexpr std::string_view who = "OneCycleLR";
    detail::check_option(max_lr > 0 && std::isfinite(max_lr), who, "max_lr", max_lr, "a number above 0");
    if (total_steps < 1) throw ValueError(concat(who, ": total_steps is ", total_steps, ", wanted at least 1"));
    detail::check_option(pct_start >= 0 && pct_start <= 1, who, "pct_start", pct_start, "[0, 1]");
    detail::check_option(div_factor > 0 && std::isfinite(div_factor), who, "div_factor", div_factor,
                         "a number above 0");
    detail::check_option(final_div_factor > 0 && std::isfinite(final_div_factor), who, "final_div_factor",
                         final_div_factor, "a number above 0");
    if (step > total_steps)
      throw ValueError(
          concat(who, ": step ", step, " of a cycle of ", total_steps,
                 ": make total_steps the number of all steps (epochs times batches, where each batch is one)"));
    const double first = max_lr / div_factor, top = pct_start * double(total_steps) - 1, end = double(total_steps) - 1;
    const auto between = [&](double from, double to, double begin, double stop) {
      // A part that is empty but for rounding, as the first of pct_start * total_steps = 1, is at its end.
      const double part = stop - begin > 1e-9 ? std::min((double(step) - begin) / (stop - begin), 1.0) : 1.0;
      return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * part));
    };
    return double(step) <= top ? between(first, max_lr, 0, top) : between(max_lr, first / final_div_factor, top, end);
  }
};

/// One schedule after another: schedules[i] begins, counting from 0, when the step reaches milestones[i - 1].
struct SequentialSchedule {
  std::vector<std::function<double(double base, std::int64_t step)>> schedules;
  std::vector<std::int64_t> milestones;

  double operator()(double base, std::int64_t step) const {
    detail::check_milestones("SequentialLR", milestones);
    if (schedules.empty() || schedules.size() != milestones.size() + 1)
      throw ValueError(concat("SequentialLR: ", schedules.size(), " schedules with ", milestones.size(),
                              " milestones, wanted one milestone between each two schedules"));
    const auto turn = std::size_t(detail::passed(milestones, step));
    return schedules[turn](base, turn == 0 ? step : step - milestones[turn - 1]);
  }
};

template <class Schedule>
class Scheduler {
 public:
  /// Sets the learning rate of step 0. The optimiser must outlive the scheduler. Throws ValueError for impossible
  /// options.
  Scheduler(Optimizer& optimizer, Schedule schedule)
      : optimizer_(&optimizer), schedule_(std::move(schedule)), base_lr_(optimizer.lr()) {
    optimizer.set_lr(schedule_(base_lr_, 0));
  }

  /// Goes to the next step: call it after the optimiser's step(), once per epoch or once per batch.
  void step() {
    optimizer_->set_lr(schedule_(base_lr_, step_ + 1));
    ++step_;
  }

  std::int64_t step_count() const { return step_; }
  double lr() const { return optimizer_->lr(); }
  /// The learning rate that the schedule starts from.
  double base_lr() const { return base_lr_; }
  /// Another one, as if it had been the optimiser's from the beginning: the present step's follows from it at once.
  /// After load_checkpoint this is how a run goes on with another learning rate, or under a schedule of other options.
  void set_base_lr(double lr) {
    optimizer_->set_lr(schedule_(lr, step_));
    base_lr_ = lr;
  }

  // The schedule's own options are the program's: one that resumes may give other milestones.
  static constexpr std::string_view state_name = "lr_scheduler";
  static void state(auto& self, auto&& f) {
    f("step", self.step_);
    f("base_lr", self.base_lr_);
  }

 private:
  Optimizer* optimizer_;
  Schedule schedule_;
  double base_lr_;
  std::int64_t step_ = 0;
};

using StepLR = Scheduler<StepSchedule>;
using MultiStepLR = Scheduler<MultiStepSchedule>;
using CosineAnnealingLR = Scheduler<CosineAnnealingSchedule>;
using LinearLR = Scheduler<LinearSchedule>;
using ExponentialLR = Scheduler<ExponentialSchedule>;
using PolynomialLR = Scheduler<PolynomialSchedule>;
using CosineAnnealingWarmRestarts = Scheduler<CosineAnnealingWarmRestartsSchedule>;
using OneCycleLR = Scheduler<OneCycleSchedule>;
using SequentialLR = Scheduler<SequentialSchedule>;

}}  // namespace strata::STRATA_ABI
