#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "golden/optim_golden.hpp"
#include "optim/optim_test_net.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/lr_scheduler.hpp"
#include "strata/optim/reduce_lr_on_plateau.hpp"
#include "strata/optim/sgd.hpp"

namespace st = strata;

namespace {

template <class Scheduler, std::size_t N>
void check_lrs(const auto& schedule, const double (&wanted)[N]) {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1});
  Scheduler scheduler(sgd, schedule);
  for (std::size_t i = 0; i < N; ++i) {
    CAPTURE(i);
    CHECK(std::abs(sgd.lr() - wanted[i]) <= 1e-15);
    CHECK(scheduler.lr() == sgd.lr());
    CHECK(scheduler.step_count() == std::int64_t(i));
    if (i + 1 < N) scheduler.step();
  }
}

template <std::size_t N>
void check_plateau(const st::ReduceLROnPlateauOptions& options, const double (&wanted)[N]) {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1});
  st::ReduceLROnPlateau scheduler(sgd, options);
  double lowest = 1;
  for (std::size_t i = 0; i < N; ++i) {
    CAPTURE(i);
    const double metric = std::nearbyint(64 * (std::cos(0.3 * double(i)) / (1 + 0.05 * double(i)) + 0.2)) / 64;
    scheduler.step(metric);
    CHECK(std::abs(sgd.lr() - wanted[i]) <= 1e-15);
    lowest = std::min(lowest, metric);
    if (options.mode == st::PlateauMode::max) CHECK(scheduler.best() == 1.203125);  // the first
  }
  if (options.mode == st::PlateauMode::min) CHECK(scheduler.best() >= lowest);
  CHECK(scheduler.step_count() == std::int64_t(N));
  CHECK(sgd.lr() < 0.1);
}

}  // namespace

TEST_CASE("schedules give torch's learning rates") {
  check_lrs<st::StepLR>(st::StepSchedule{.step_size = 3, .gamma = 0.5}, golden::step_lr);
  check_lrs<st::MultiStepLR>(st::MultiStepSchedule{.milestones = {2, 3, 9}, .gamma = 0.1}, golden::multi_step_lr);
  check_lrs<st::CosineAnnealingLR>(st::CosineAnnealingSchedule{.t_max = 8, .eta_min = 0.01}, golden::cosine_lr);
  check_lrs<st::LinearLR>(st::LinearSchedule{.start_factor = 0.1, .end_factor = 0.9, .total_iters = 4},
                          golden::linear_lr);
  check_lrs<st::SequentialLR>(
      st::SequentialSchedule{.schedules = {st::LinearSchedule{.start_factor = 0.1, .total_iters = 4},
                                           st::CosineAnnealingSchedule{.t_max = 8},
                                           st::StepSchedule{.step_size = 2, .gamma = 0.5}},
                             .milestones = {4, 10}},
      golden::sequential_lr);
}

TEST_CASE("schedules give torch's learning rates over a hundred steps") {
  check_lrs<st::ExponentialLR>(st::ExponentialSchedule{.gamma = 0.95}, golden::exponential_lr);
  check_lrs<st::PolynomialLR>(st::PolynomialSchedule{.total_iters = 80, .power = 1.7}, golden::polynomial_lr);
  check_lrs<st::CosineAnnealingWarmRestarts>(st::CosineAnnealingWarmRestartsSchedule{.t_0 = 7, .eta_min = 0.01},
                                             golden::cosine_restarts_lr);
  check_lrs<st::CosineAnnealingWarmRestarts>(st::CosineAnnealingWarmRestartsSchedule{.t_0 = 5, .t_mult = 3},
                                             golden::cosine_restarts_longer_lr);
  check_lrs<st::OneCycleLR>(st::OneCycleSchedule{.max_lr = 0.5, .total_steps = 100}, golden::one_cycle_lr);
  check_lrs<st::OneCycleLR>(st::OneCycleSchedule{.max_lr = 0.2, .total_steps = 101, .pct_start = 0.123, .div_factor = 4,
                                                 .final_div_factor = 50},
                            golden::one_cycle_other_lr);
}

TEST_CASE("schedules at their ends") {
  const st::OneCycleSchedule cycle{.max_lr = 1, .total_steps = 10, .pct_start = 0.1};  // torch divides by 0 here
  CHECK(cycle(0, 0) == 1);
  CHECK(cycle(0, 9) == doctest::Approx(1 / 25e4));
  CHECK(cycle(0, 10) == cycle(0, 9));
  CHECK_THROWS_WITH_AS(cycle(0, 11), doctest::Contains("step 11 of a cycle of 10"), st::ValueError);
  CHECK(st::OneCycleSchedule{.max_lr = 1, .total_steps = 1}(0, 0) == doctest::Approx(1 / 25e4));
  CHECK(st::OneCycleSchedule{.max_lr = 1, .total_steps = 5, .pct_start = 1}(0, 4) == 1);
  const std::int64_t last = std::numeric_limits<std::int64_t>::max();
  CHECK(st::CosineAnnealingWarmRestartsSchedule{.t_0 = 3, .t_mult = 2}(1, last - 1) >= 0);
  CHECK(st::CosineAnnealingWarmRestartsSchedule{.t_0 = last, .t_mult = 2}(1, 0) == 1);
  CHECK(st::PolynomialSchedule{}(1, last) == 0);
}

TEST_CASE("ReduceLROnPlateau gives torch's learning rates") {
  using enum st::PlateauMode;
  using enum st::ThresholdMode;
  check_plateau({.factor = 0.5, .patience = 3, .threshold = 0.1, .cooldown = 2, .min_lr = 0.001},
                golden::plateau_min_rel);
  check_plateau({.mode = max, .factor = 0.3, .patience = 5, .threshold = 0.01}, golden::plateau_max_rel);
  check_plateau({.factor = 0.7, .patience = 0, .threshold = 0.05, .threshold_mode = abs, .cooldown = 4},
                golden::plateau_min_abs);
  check_plateau({.mode = max, .factor = 0.9, .patience = 2, .threshold = 0, .threshold_mode = abs, .min_lr = 0.05,
                 .eps = 0.002},
                golden::plateau_max_abs);
}

TEST_CASE("ReduceLROnPlateau refuses what is no number, and impossible options") {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1});
  st::ReduceLROnPlateau scheduler(sgd, {.patience = 0});
  scheduler.step(1);
  CHECK_THROWS_AS(scheduler.step(std::nan("")), st::NumericError);
  CHECK_THROWS_AS(scheduler.step(std::numeric_limits<double>::infinity()), st::NumericError);
  CHECK(scheduler.step_count() == 1);
  CHECK(sgd.lr() == 0.1);
  CHECK_THROWS_WITH_AS(st::ReduceLROnPlateau(sgd, {.factor = 1}), "ReduceLROnPlateau: factor is 1, wanted (0, 1)",
                       st::ValueError);
  CHECK_THROWS_AS(st::ReduceLROnPlateau(sgd, {.factor = 0}), st::ValueError);
  CHECK_THROWS_AS(st::ReduceLROnPlateau(sgd, {.patience = -1}), st::ValueError);
  CHECK_THROWS_AS(st::ReduceLROnPlateau(sgd, {.threshold = -1}), st::ValueError);
  CHECK_THROWS_AS(st::ReduceLROnPlateau(sgd, {.cooldown = -1}), st::ValueError);
  CHECK_THROWS_AS(st::ReduceLROnPlateau(sgd, {.min_lr = -1}), st::ValueError);
}

TEST_CASE("schedulers are made in one line, for any optimiser, and from one's own schedule") {
  optim_test::Net net;
  st::AdamW adamw(net, {.lr = 0.1f});
  st::MultiStepLR drops(adamw, {.milestones = {1, 2}, .gamma = 0.1f});
  drops.step();
  CHECK(adamw.lr() == doctest::Approx(0.01));
  adamw.set_lr(1);
  struct Halves {
    double operator()(double base, std::int64_t step) const { return base / double(step + 1); }
  };
  st::Scheduler own(adamw, Halves{});
  own.step();
  CHECK(adamw.lr() == 0.5);
}

TEST_CASE("another base holds at once, as if it had been there from the beginning") {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1}), other(net, {.lr = 0.7});
  st::MultiStepLR scheduler(sgd, {.milestones = {2, 4}, .gamma = 0.5}),
      wanted(other, {.milestones = {2, 4}, .gamma = 0.5});
  for (int step = 0; step < 3; ++step) scheduler.step(), wanted.step();
  CHECK(scheduler.base_lr() == 0.1);
  scheduler.set_base_lr(0.7);
  CHECK(scheduler.base_lr() == 0.7);
  for (int step = 3; step < 6; ++step) {
    CHECK(sgd.lr() == other.lr());
    scheduler.step(), wanted.step();
  }
  CHECK_THROWS_AS(scheduler.set_base_lr(-1), st::ValueError);
  CHECK(scheduler.base_lr() == 0.7);
}

TEST_CASE("impossible schedules are value errors") {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1});
  CHECK_THROWS_AS(st::StepLR(sgd, {.step_size = 0}), st::ValueError);
  CHECK_THROWS_AS(st::MultiStepLR(sgd, {.milestones = {5, 3}}), st::ValueError);
  CHECK_THROWS_AS(st::MultiStepLR(sgd, {.milestones = {-5}}), st::ValueError);
  CHECK_THROWS_AS(st::CosineAnnealingLR(sgd, {}), st::ValueError);
  CHECK_THROWS_AS(st::LinearLR(sgd, {.start_factor = 0}), st::ValueError);
  CHECK_THROWS_AS(st::LinearLR(sgd, {.total_iters = 0}), st::ValueError);
  CHECK_THROWS_AS(st::ExponentialLR(sgd, {.gamma = 0}), st::ValueError);
  CHECK_THROWS_AS(st::PolynomialLR(sgd, {.total_iters = 0}), st::ValueError);
  CHECK_THROWS_AS(st::PolynomialLR(sgd, {.power = -1}), st::ValueError);
  CHECK_THROWS_AS(st::CosineAnnealingWarmRestarts(sgd, {}), st::ValueError);
  CHECK_THROWS_AS(st::CosineAnnealingWarmRestarts(sgd, {.t_0 = 3, .t_mult = 0}), st::ValueError);
  CHECK_THROWS_AS(st::OneCycleLR(sgd, {.total_steps = 5}), st::ValueError);
  CHECK_THROWS_AS(st::OneCycleLR(sgd, {.max_lr = 1}), st::ValueError);
  CHECK_THROWS_AS(st::OneCycleLR(sgd, {.max_lr = 1, .total_steps = 5, .pct_start = 2}), st::ValueError);
  CHECK_THROWS_AS(st::OneCycleLR(sgd, {.max_lr = 1, .total_steps = 5, .div_factor = 0}), st::ValueError);
  CHECK_THROWS_AS(st::SequentialLR(sgd, {}), st::ValueError);
  CHECK_THROWS_AS(st::SequentialLR(sgd, {.schedules = {st::StepSchedule{}}, .milestones = {3}}), st::ValueError);
  CHECK(sgd.lr() == 0.1);
}
