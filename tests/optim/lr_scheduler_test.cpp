#include <doctest/doctest.h>

#include "golden/optim_golden.hpp"
#include "optim/optim_test_net.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/lr_scheduler.hpp"
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
    scheduler.step();
  }
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

TEST_CASE("impossible schedules are value errors") {
  optim_test::Net net;
  st::SGD sgd(net, {.lr = 0.1});
  CHECK_THROWS_AS(st::StepLR(sgd, {.step_size = 0}), st::ValueError);
  CHECK_THROWS_AS(st::MultiStepLR(sgd, {.milestones = {5, 3}}), st::ValueError);
  CHECK_THROWS_AS(st::MultiStepLR(sgd, {.milestones = {-5}}), st::ValueError);
  CHECK_THROWS_AS(st::CosineAnnealingLR(sgd, {}), st::ValueError);
  CHECK_THROWS_AS(st::LinearLR(sgd, {.start_factor = 0}), st::ValueError);
  CHECK_THROWS_AS(st::LinearLR(sgd, {.total_iters = 0}), st::ValueError);
  CHECK_THROWS_AS(st::SequentialLR(sgd, {}), st::ValueError);
  CHECK_THROWS_AS(st::SequentialLR(sgd, {.schedules = {st::StepSchedule{}}, .milestones = {3}}), st::ValueError);
  CHECK(sgd.lr() == 0.1);
}
