// Every operator of expressions: its values, and its gradient by differences. Numbers at kinks follow PyTorch.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "autograd/random_image.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/scalar.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// f(pass, a, b) at random positive a and at random b, away from kinks: values against `scalar`, gradients by
/// differences.
template <class F, class S>
void check(const char* name, F f, S scalar) {
  CAPTURE(name);
  // 90 elements: no whole vectors
  const auto a = random_image<3>(2, 3, 5, 1, 0.5f, 2.0f), b = random_image<3>(2, 3, 5, 2, 0.6f, 1.9f);
  st::Infer infer;
  const st::Var<3> y = f(infer, st::Var<3>(a), st::Var<3>(b));
  for (std::int64_t i = 0; i < a.size(); ++i)
    CHECK(double(y.data()[i]) == doctest::Approx(scalar(double(a.data()[i]), double(b.data()[i]))).epsilon(2e-6));
  const auto report = st::GradientCheck({.samples = 0})(f, a, b);
  CHECK_MESSAGE(report.ok(), report.str());
}

st::Image<1, double> image_of(const std::vector<double>& values) {
  st::Image<1, double> image(1, 1, std::int64_t(values.size()));
  std::copy(values.begin(), values.end(), image.data());
  return image;
}

/// The gradients of sum(f(a, b)) for a and b.
template <class F>
std::vector<std::vector<double>> gradients(F f, const std::vector<double>& a, const std::vector<double>& b) {
  st::Train pass;
  const auto x = pass.watch(image_of(a)), y = pass.watch(image_of(b));
  pass.backward(sum(f(x, y)));
  const auto gx = pass.gradient(x), gy = pass.gradient(y);
  return {{gx.span().begin(), gx.span().end()}, {gy.span().begin(), gy.span().end()}};
}

using Rows = std::vector<std::vector<double>>;

}  // namespace

TEST_CASE("operators of two images") {
  check("+", [](auto&, const auto& a, const auto& b) { return a + b; }, [](double a, double b) { return a + b; });
  check("-", [](auto&, const auto& a, const auto& b) { return a - b; }, [](double a, double b) { return a - b; });
  check("*", [](auto&, const auto& a, const auto& b) { return a * b; }, [](double a, double b) { return a * b; });
  check("/", [](auto&, const auto& a, const auto& b) { return a / b; }, [](double a, double b) { return a / b; });
  check(
      "maximum", [](auto&, const auto& a, const auto& b) { return maximum(a, b); },
      [](double a, double b) { return std::max(a, b); });
  check(
      "minimum", [](auto&, const auto& a, const auto& b) { return minimum(a, b); },
      [](double a, double b) { return std::min(a, b); });
}

TEST_CASE("operators of one image") {
  check(
      "negate", [](auto&, const auto& a, const auto& b) { return -a * b; }, [](double a, double b) { return -a * b; });
  check(
      "square", [](auto&, const auto& a, const auto& b) { return square(a - b); },
      [](double a, double b) { return (a - b) * (a - b); });
  check(
      "sqrt", [](auto&, const auto& a, const auto& b) { return sqrt(a * b); },
      [](double a, double b) { return std::sqrt(a * b); });
  check(
      "abs", [](auto&, const auto& a, const auto& b) { return abs(a - 2 * b); },
      [](double a, double b) { return std::abs(a - 2 * b); });
  check(
      "exp", [](auto&, const auto& a, const auto& b) { return exp(a - b); },
      [](double a, double b) { return std::exp(a - b); });
  check("sigmoid", [](auto&, const auto& a, const auto& b) { return sigmoid(a * b); },
        [](double a, double b) { return 1 / (1 + std::exp(-a * b)); });
  check(
      "tanh", [](auto&, const auto& a, const auto& b) { return tanh(a - b); },
      [](double a, double b) { return std::tanh(a - b); });
  check(
      "erf", [](auto&, const auto& a, const auto& b) { return erf(a - b); },
      [](double a, double b) { return std::erf(a - b); });
  check(
      "log", [](auto&, const auto& a, const auto& b) { return log(a) * b; },
      [](double a, double b) { return std::log(a) * b; });
  check("clamp", [](auto&, const auto& a, const auto& b) { return clamp(a, 0.9, 1.4) * b; },
        [](double a, double b) { return std::clamp(a, 0.9, 1.4) * b; });
}

TEST_CASE("numbers of any type on either side") {
  check(
      "numbers",
      [](auto&, const auto& a, const auto& b) { return (2 * a + 1) / (b + 0.5) - 3.0f * (1 - a) * 2 + 1 / b - b / 4; },
      [](double a, double b) { return (2 * a + 1) / (b + 0.5) - 3 * (1 - a) * 2 + 1 / b - b / 4; });
  check("maximum with a number", [](auto&, const auto& a, const auto& b) { return maximum(a, 1) + minimum(0.9, b); },
        [](double a, double b) { return std::max(a, 1.0) + std::min(0.9, b); });
}

TEST_CASE("one operand many times, and expressions used twice") {
  check("a a a", [](auto&, const auto& a, const auto& b) { return a * a * a + b * (a - b) / a; },
        [](double a, double b) { return a * a * a + b * (a - b) / a; });
  check("twice", [](auto&, const auto& a, const auto& b) {
    const auto d = square(a - b);
    return d * d + exp(-d);
  }, [](double a, double b) {
    const double d = (a - b) * (a - b);
    return d * d + std::exp(-d);
  });
  check("a computed image used twice", [](auto&, const auto& a, const auto& b) {
    const auto d = st::as_var(a * b);
    return st::as_var(d * d) + d;
  }, [](double a, double b) { return a * b * a * b + a * b; });
}

TEST_CASE("sums and means") {
  const auto a = random_image<3>(2, 5, 7, 4);
  double total = 0;
  for (const float x : a.span()) total += double(x);
  CHECK(double(sum(a).item()) == doctest::Approx(total).epsilon(1e-6));
  CHECK(double(mean(a).item()) == doctest::Approx(total / 210).epsilon(1e-6));
  const auto report = st::gradient_check(
      [](auto&, const auto& x) { return sum(square(x)) * 0.1f + exp(mean(x)) / (1 + square(sum(x * x * x))); }, a);
  CHECK_MESSAGE(report.ok(), report.str());

  st::Image<1> large(1, 2000, 1000);  // in float alone 2e6 terms of 0.1 would be off by 1e-2
  large.tensor().fill(0.1f);
  CHECK(double(mean(large).item()) == doctest::Approx(0.1).epsilon(1e-6));
  CHECK(double(sum(st::Image<1>()).item()) == 0.0);
  CHECK_THROWS_AS(mean(st::Image<1>()), st::ShapeError);
}

TEST_CASE("gradients at kinks are PyTorch's") {
  const auto zero = [](const auto& a, const auto& b) { return 0 * a * b; };
  CHECK(gradients(zero, {1}, {2}) == Rows{{0}, {0}});
  CHECK(gradients([](const auto& a, const auto& b) { return abs(a) + 0 * b; }, {-1, 0, 2}, {1, 1, 1})[0] ==
        Rows{{-1, 0, 1}}[0]);
  CHECK(gradients([](const auto& a, const auto& b) { return clamp(a, -1, 1) + 0 * b; }, {-2, -1, 0, 1, 2},
                  {0, 0, 0, 0, 0})[0] == std::vector<double>{0, 1, 1, 1, 0});
  CHECK(gradients([](const auto& a, const auto& b) { return maximum(a, b); }, {1, 2, 3}, {2, 2, 2}) ==
        Rows{{0, 0.5, 1}, {1, 0.5, 0}});
  CHECK(gradients([](const auto& a, const auto& b) { return minimum(a, b); }, {1, 2, 3}, {2, 2, 2}) ==
        Rows{{1, 0.5, 0}, {0, 0.5, 1}});
  CHECK(gradients([](const auto& a, const auto&) { return sqrt(a); }, {0, 4}, {0, 0})[0] ==
        std::vector<double>{infinity, 0.25});
  CHECK(gradients([](const auto& a, const auto&) { return sqrt(a + 1e-6); }, {0}, {0})[0][0] == doctest::Approx(500));
}

TEST_CASE("what is not a number stays so") {
  const auto value = [](const auto& expression) { return double(st::as_var(expression).data()[0]); };
  const auto x = image_of({not_a_number}), y = image_of({1});
  CHECK(std::isnan(value(maximum(x, y))));
  CHECK(std::isnan(value(maximum(y, x))));
  CHECK(std::isnan(value(minimum(x, y))));
  CHECK(std::isnan(value(minimum(y, x))));
  CHECK(std::isnan(value(clamp(x, 0, 1))));
  CHECK(std::isnan(value(abs(x))));
  CHECK(std::isnan(double(mean(x).item())));
  // In the middle of a vector, too.
  auto many = random_image<1>(1, 4, 8, 1);
  many.data()[13] = float(not_a_number);
  const st::Var<1> largest = maximum(many, 0.0f);
  for (std::int64_t i = 0; i < 32; ++i) CHECK(std::isnan(largest.data()[i]) == (i == 13));
}

TEST_CASE("images of different shapes are an error, never repeated to fit") {
  const st::Image<2> a = random_image<2>(2, 3, 4, 1);
  for (const st::Image<2>& b : {random_image<2>(1, 3, 4, 1), random_image<2>(2, 4, 3, 1), random_image<2>(2, 3, 1, 1)})
    CHECK_THROWS_WITH_AS(a + b, doctest::Contains("different shapes: 2x2x3x4 and "), st::ShapeError);
  CHECK_THROWS_AS(a * 2 - square(random_image<2>(2, 3, 5, 1)), st::ShapeError);
  CHECK_THROWS_WITH_AS(clamp(a, 1, 0), doctest::Contains("low 1 must not be above high 0"), st::ValueError);
  CHECK_THROWS_AS(clamp(a, not_a_number, 0), st::ValueError);
}

namespace {

/// All operations of an image of C channels and one of one channel, on either side, one of them twice.
template <int C>
struct BesideOneChannel {
  auto operator()(auto&, const auto& x, const auto& one) const {
    const auto a = square(one) * x - x / (one + 2.0) + (one - x);
    const auto b = one / (square(x) + 1.0) + maximum(x, one) - minimum(one, 0.5 * x) + (x + one) * (x - one);
    return a + b;
  }
  static double scalar(double x, double one) {
    return one * one * x - x / (one + 2) + (one - x) + one / (x * x + 1) + std::max(x, one) - std::min(one, 0.5 * x) +
           (x + one) * (x - one);
  }
};

template <int C>
void check_beside_one_channel(std::int64_t n, std::int64_t h, std::int64_t w) {
  CAPTURE(C);
  CAPTURE(h);
  const auto x = random_image<C>(n, h, w, 1);
  const auto one = random_image<1>(n, h, w, 2, 1.1f, 2.0f);
  st::Infer infer;
  const st::Var<C> y = BesideOneChannel<C>()(infer, st::Var<C>(x), one);
  double worst = 0;
  for (std::int64_t i = 0; i < x.size(); ++i)
    worst = std::max(worst, std::abs(double(y.data()[i]) -
                                     BesideOneChannel<C>::scalar(double(x.data()[i]), double(one.data()[i / C]))));
  CHECK(worst <= 1e-5);
  const auto report = st::gradient_check(BesideOneChannel<C>(), x, one);
  CHECK_MESSAGE(report.ok(), report.str());
}

}  // namespace

TEST_CASE("an image of one channel is repeated beside images of several") {
  check_beside_one_channel<3>(2, 3, 5);
  check_beside_one_channel<3>(1, 1, 1);
  check_beside_one_channel<7>(2, 5, 3);
  check_beside_one_channel<16>(1, 3, 3);
  check_beside_one_channel<37>(2, 1, 4);
}

TEST_CASE("its gradient is the sum over channels, where tasks meet too, and for any number of threads") {
  const auto check = [&]<int C>(std::int64_t h, std::int64_t w) {
    CAPTURE(C);
    const auto x = random_image<C>(2, h, w, 3);
    const auto one = random_image<1>(2, h, w, 4);
    std::vector<double> wanted(std::size_t(one.size()));  // of sum(square(x) * one) + sum(one)
    for (std::int64_t i = 0; i < x.size(); ++i)
      wanted[std::size_t(i / C)] += double(x.data()[i]) * double(x.data()[i]) + (i % C == 0 ? 1.0 : 0.0);
    std::vector<float> first;
    const int before = st::num_threads();
    for (const int threads : {1, 2, 3}) {
      st::set_num_threads(threads);
      st::Train pass;
      const auto v = pass.watch(one);
      pass.backward(sum(square(x) * v) + sum(v));  // the second adds to the first
      const auto g = pass.gradient(v);
      double worst = 0;
      for (std::size_t i = 0; i < wanted.size(); ++i)
        worst = std::max(worst, std::abs(double(g.data()[i]) - wanted[i]) / (1 + wanted[i]));
      CHECK(worst <= 1e-5);
      const std::vector<float> numbers(g.span().begin(), g.span().end());
      if (threads == 1) first = numbers;
      CHECK(numbers == first);
    }
    st::set_num_threads(before);
  };
  check.operator()<3>(61, 47);    // 16384 elements of a task are no whole number of pixels
  check.operator()<64>(31, 20);   // they are
  check.operator()<20000>(2, 2);  // a pixel of more than one task
}

TEST_CASE("an expression of one channel beside several, and what stays an error") {
  const auto x = random_image<4>(2, 3, 5, 1);
  const auto one = random_image<1>(2, 3, 5, 2);
  const auto report = st::gradient_check(
      [](auto&, const auto& a, const auto& mask) { return (1.0 - sigmoid(mask)) * a + sigmoid(mask); }, x, one);
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK(st::Var<4>(x * one).tape() == nullptr);
  CHECK_THROWS_WITH_AS(x * random_image<1>(2, 3, 4, 2), doctest::Contains("different shapes: 2x4x3x5 and 2x4x3x4"),
                       st::ShapeError);
  CHECK_THROWS_AS(x * random_image<1>(1, 3, 5, 2), st::ShapeError);
}

TEST_CASE("arithmetic on scalars") {
  st::Train pass;
  const auto x = pass.watch(image_of({0.7, 1.3})), y = pass.watch(image_of({2.0, 0.5}));
  const auto f = [](const auto& a, const auto& b) {
    return sqrt(a * b) + square(a - b) / (b + 2) - 3 * abs(a - 2 * b) + exp(-a) * 0.5 - log(b) / 4 + (1 - a) + 2 / b;
  };
  const double a = 1.0, b = 1.25, h = 1e-6;  // the means
  const auto plain = [](double p, double q) {
    return std::sqrt(p * q) + (p - q) * (p - q) / (q + 2) - 3 * std::abs(p - 2 * q) + std::exp(-p) * 0.5 -
           std::log(q) / 4 + (1 - p) + 2 / q;
  };
  const auto loss = f(mean(x), mean(y));
  CHECK(loss.item() == doctest::Approx(plain(a, b)).epsilon(1e-12));
  pass.backward(loss);
  CHECK(pass.gradient(x).data()[0] == doctest::Approx((plain(a + h, b) - plain(a - h, b)) / (2 * h) / 2).epsilon(1e-8));
  CHECK(pass.gradient(y).data()[1] == doctest::Approx((plain(a, b + h) - plain(a, b - h)) / (2 * h) / 2).epsilon(1e-8));

  st::Train again;
  const auto z = again.watch(image_of({3}));
  const auto s = sum(z);
  again.backward(s * s * s);  // the same scalar three times
  CHECK(again.gradient(z).data()[0] == doctest::Approx(27));
}

TEST_CASE("an expression's value") {
  const auto a = random_image<2>(1, 3, 3, 5);
  const auto expression = 2 * a + 1;
  CHECK(expression.shape() == a.shape());
  const st::Var<2> y = expression;
  CHECK(y.tape() == nullptr);
  CHECK(y.data()[5] == 2 * a.data()[5] + 1);
}

TEST_CASE(
    "exp, log, sigmoid, tanh and erf of floats: nearly exact, right at the ends, the same alone and in a vector") {
  using V = st::simd::Vector<float>;
  const auto check = [](auto function, auto exact, float low, float high, double ulps) {
    for (int i = 0; i <= 100000; ++i) {
      const float x = low + (high - low) * float(i) / 100000;
      const float y = function.value(x);
      const double wanted = exact(double(x));
      const float near = std::abs(float(wanted));
      CHECK(std::abs(double(y) - wanted) <= ulps * double(std::nextafter(near, INFINITY) - near));
      CHECK(function.value(V{} + x)[0] == y);
    }
  };
  check(st::math::Exp(), [](double x) { return std::exp(x); }, -87, 88.7f, 1.5);
  check(st::math::Sigmoid(), [](double x) { return 1 / (1 + std::exp(-x)); }, -80, 80, 3);
  check(st::math::Tanh(), [](double x) { return std::tanh(x); }, -10, 10, 2);
  check(st::math::Log(), [](double x) { return std::log(x); }, 1e-3f, 3, 2);
  check(st::math::Log(), [](double x) { return std::log(x); }, 1e-30f, 1e30f, 1);
  check(st::math::Log(), [](double x) { return std::log(x); }, 1e-44f, 1e-37f, 1);
  for (int i = -60000; i <= 60000; ++i)
    CHECK(std::abs(double(st::math::Erf::value(float(i) / 10000)) - std::erf(double(float(i) / 10000))) <= 5e-7);
  CHECK(st::math::Log::value(0.0f) == -infinity);
  CHECK(std::isnan(st::math::Log::value(-1.0f)));
  CHECK(st::math::Log::value(float(infinity)) == infinity);
  for (const float large : {89.0f, 1e30f, float(infinity)}) {
    CHECK(std::isinf(st::math::Exp::value(large)));
    CHECK(st::math::Exp::value(-large) == 0);
    CHECK(st::math::Sigmoid::value(large) == 1);
    CHECK(st::math::Sigmoid::value(-large) == doctest::Approx(0));
    CHECK(st::math::Tanh::value(-large) == -1);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float y : {st::math::Exp::value(nan), st::math::Sigmoid::value(nan), st::math::Tanh::value(nan),
                        st::math::Log::value(nan), st::math::Erf::value(nan)})
    CHECK(std::isnan(y));
}
