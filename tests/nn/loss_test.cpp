// Losses that are more than one operation: against PyTorch (tests/golden/losses.py), and their gradients by differences.
#include "strata/nn/loss.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "autograd/random_image.hpp"
#include "golden/losses_golden.hpp"
#include "strata/autograd/gradient_check.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// f(i) for the elements in PyTorch's order.
template <class T, class F>
st::Image<3, T> image_of(F f) {
  st::Image<3, T> image(2, 2, 3);
  int i = 0;
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 2; ++y)
        for (std::int64_t x = 0; x < 3; ++x) image(n, c, y, x) = T(f(i++));
  return image;
}

template <class T, class Target, std::size_t N>
void check(const auto& loss, const Target& target, const double (&wanted)[N]) {
  constexpr double tolerance = std::is_same_v<T, float> ? 4e-6 : 1e-13;
  st::Train pass;
  const auto prediction = pass.watch(image_of<T>([](int i) { return std::nearbyint(8 * std::sin(i + 1)) / 4; }));
  const st::Scalar<T> value = loss(prediction, target);
  CHECK(std::abs(double(value.item()) - wanted[0]) <= tolerance * std::abs(wanted[0]));
  pass.backward(value);
  const st::Image<3, T> gradient = pass.gradient(prediction);
  double largest = 0;
  for (std::size_t i = 1; i < N; ++i) largest = std::max(largest, std::abs(wanted[i]));
  std::size_t i = 1;
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 2; ++y)
        for (std::int64_t x = 0; x < 3; ++x, ++i) {
          CAPTURE(i);
          CHECK(std::abs(double(gradient(n, c, y, x)) - wanted[i]) <= tolerance * largest);
        }
  CHECK(i == N);
}

template <class T>
void check_all() {
  const auto target = image_of<T>([](int i) { return std::nearbyint(8 * std::cos(2 * i)) / 4; });
  const auto probabilities = image_of<T>([](int i) { return std::min(std::max(0.5 + 0.7 * std::cos(2 * i), 0.0), 1.0); });
  st::Tensor<st::Label> labels(st::Shape{12});
  for (std::int64_t i = 0; i < 12; ++i) labels.data()[i] = i % 3;
  constexpr auto sum = st::Reduction::sum;
  check<T>(st::HuberLoss(), target, golden::huber);
  check<T>(st::HuberLoss({.delta = 0.5, .reduction = sum}), target, golden::huber_sum);
  check<T>(st::SmoothL1Loss(), target, golden::smooth_l1);
  check<T>(st::SmoothL1Loss({.beta = 0.5, .reduction = sum}), target, golden::smooth_l1_sum);
  check<T>(st::SmoothL1Loss({.beta = 0}), target, golden::smooth_l1_zero);
  check<T>(st::BCEWithLogitsLoss(), probabilities, golden::bce);
  const st::BCEWithLogitsLoss weighted({.pos_weight = 2.5, .reduction = sum});
  check<T>([&](const auto& x, const auto& y) { return weighted(40 * x, y); }, probabilities, golden::bce_sum);
  check<T>(st::CrossEntropyLoss({.label_smoothing = 0.1}), labels, golden::cross_entropy_smooth);
  check<T>(st::CrossEntropyLoss({.label_smoothing = 0.6, .reduction = sum}), labels, golden::cross_entropy_smooth_sum);
}

}  // namespace

TEST_CASE("losses and their gradients are torch's, in float64 and float32") {
  check_all<double>();
  check_all<float>();
}

TEST_CASE("gradients of losses by differences, for the target too") {
  const auto p = random_image<3>(2, 4, 3, 1), t = random_image<3>(2, 4, 3, 2);
  const auto check = [&](const auto& loss) {
    const auto report = st::gradient_check([&](auto&, const auto& a, const auto& b) { return loss(a, b); }, p, t);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(st::HuberLoss({.delta = 0.4}));
  check(st::SmoothL1Loss({.beta = 0.4}));
  check(st::SmoothL1Loss({.beta = 0, .reduction = st::Reduction::sum}));
  check(st::BCEWithLogitsLoss());
  check(st::BCEWithLogitsLoss({.pos_weight = 3, .reduction = st::Reduction::half_sum}));
  st::Tensor<st::Label> labels(st::Shape{24});
  for (std::int64_t i = 0; i < 24; ++i) labels.data()[i] = i % 3;
  for (const double smoothing : {0.2, 1.0}) {
    const st::CrossEntropyLoss loss({.label_smoothing = smoothing});
    const auto report = st::gradient_check([&](auto&, const auto& x) { return loss(5 * x, labels); }, p);
    CHECK_MESSAGE(report.ok(), report.str());
  }
}

TEST_CASE("numbers far out") {
  const auto far = st::Image<2>::full(1, 1, 1, 1000.0f), zero = st::Image<2>::full(1, 1, 1, 0);
  CHECK(st::BCEWithLogitsLoss()(far, zero).item() == 1000.0f);
  CHECK(st::BCEWithLogitsLoss()(-far, zero).item() == 0.0f);
  CHECK(st::BCEWithLogitsLoss()(zero, zero).item() == doctest::Approx(std::log(2.0)));
  CHECK(st::HuberLoss({.delta = 1e-3})(1e6f * far, zero).item() == doctest::Approx(1e6));
  CHECK(std::isnan(st::HuberLoss()(std::nanf("") * far, zero).item()));
  CHECK(std::isnan(st::SmoothL1Loss()(std::nanf("") * far, zero).item()));
  CHECK(std::isnan(st::BCEWithLogitsLoss()(std::nanf("") * far, zero).item()));
}

TEST_CASE("impossible losses are value errors") {
  CHECK_THROWS_WITH_AS(st::HuberLoss({.delta = 0}), "HuberLoss: delta is 0, wanted a number above 0", st::ValueError);
  CHECK_THROWS_AS(st::HuberLoss({.delta = std::nan("")}), st::ValueError);
  CHECK_THROWS_AS(st::SmoothL1Loss({.beta = -1}), st::ValueError);
  CHECK_THROWS_AS(st::BCEWithLogitsLoss({.pos_weight = -1}), st::ValueError);
  CHECK_THROWS_AS(st::CrossEntropyLoss({.label_smoothing = 1.5}), st::ValueError);
  CHECK_THROWS_AS(st::HuberLoss()(st::Image<1>(), st::Image<1>()), st::ShapeError);
}
