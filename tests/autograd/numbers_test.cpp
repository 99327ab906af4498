// Learned numbers and scalars as operands of expressions.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "autograd/random_image.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// All four operations, on either side, with numbers of every shape; one number twice.
template <int C>
struct Scaled {
  using io = st::maps<C, C>;
  st::Parameter beta{st::Shape{1, C, 1, 1}, 0.0f}, gamma{st::Shape{C, 1, 1}, 1.0f}, gain{st::Shape{1}, 0.5f};
  static constexpr void visit(auto& self, auto&& f) {
    f("beta", self.beta);
    f("gamma", self.gamma);
    f("gain", self.gain);
  }
  static constexpr auto run(auto& self, const auto& x) {
    return self.gain + (self.beta - x * self.gamma) * exp(x * 0.25) / self.gamma + self.gain * square(x - self.beta) +
           self.gain / (square(x) + 1.0);
  }
  template <st::Pass P>
  constexpr auto operator()(P& pass, const auto& x) {
    return st::as_var(pass, run(*this, x));
  }
  template <st::Pass P>
  constexpr auto operator()(P& pass, const auto& x) const {
    return st::as_var(pass, run(*this, x));
  }
};

template <int C>
Scaled<C> scaled() {
  Scaled<C> net;
  st::Rng rng(4);
  for (float& x : net.beta.value().span()) x = rng.uniform(-1, 1);
  for (float& x : net.gamma.value().span()) x = rng.uniform(1, 2);
  return net;
}

template <int C>
void check_gradients(std::int64_t n, std::int64_t h, std::int64_t w) {
  const auto report = st::gradient_check(scaled<C>(), random_image<C>(n, h, w, 7));
  CHECK_MESSAGE(report.ok(), report.str());
}

bool same_bits(const auto& a, const auto& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(*a.data())) == 0;
}

}  // namespace

TEST_CASE("learned numbers in expressions: gradients") {
  check_gradients<1>(1, 1, 1);
  check_gradients<1>(2, 5, 9);
  check_gradients<3>(2, 4, 5);
  check_gradients<8>(1, 3, 3);
  check_gradients<19>(2, 3, 7);
  check_gradients<64>(1, 2, 5);
}

TEST_CASE_TEMPLATE("learned numbers: values and sums over many pixels", T, float, double) {
  const auto check = []<int C>(std::integral_constant<int, C>, std::int64_t n, std::int64_t h, std::int64_t w) {
    CAPTURE(C);
    st::Parameter beta(st::Shape{1, C, 1, 1}, 0.0f), gain(st::Shape{1}, 1.5f);
    st::Rng rng(2);
    for (float& b : beta.value().span()) b = rng.uniform(-1, 1);
    beta.to<T>();
    gain.to<T>();
    const auto x = random_image<C, T>(n, h, w, 3), y = random_image<C, T>(n, h, w, 4),
               weight = random_image<C, T>(n, h, w, 5);
    std::vector<std::vector<T>> bits;
    const int before = st::num_threads();
    for (const int threads : {1, 2, 3}) {
      st::set_num_threads(threads);
      beta.zero_grad();
      gain.zero_grad();
      st::Train pass;
      const auto z = st::as_var(pass, x + y * beta * gain);
      pass.backward(sum(z * weight));
      std::vector<double> wanted(C, 0.0), magnitude(C, 0.0);
      double all = 0, all_magnitude = 0;
      bool values = true;
      for (std::int64_t i = 0; i < x.size(); ++i) {
        const std::size_t c = std::size_t(i % C);
        const double b = double(std::as_const(beta).template value<T>().data()[c]);
        const double term = double(y.data()[i]) * double(weight.data()[i]);
        wanted[c] += 1.5 * term, magnitude[c] += std::abs(1.5 * term);
        all += b * term, all_magnitude += std::abs(b * term);
        values &= std::abs(double(z.value().data()[i]) - (double(x.data()[i]) + 1.5 * double(y.data()[i]) * b)) <=
                  4 * double(std::numeric_limits<T>::epsilon());
      }
      CHECK(values);
      const double tolerance = 16 * double(std::numeric_limits<T>::epsilon());  // up to 32 numbers in T at a time
      for (std::size_t c = 0; c < C; ++c)
        CHECK(std::abs(double(beta.template grad<T>().data()[c]) - wanted[c]) <= tolerance * magnitude[c]);
      CHECK(std::abs(double(gain.template grad<T>().data()[0]) - all) <= tolerance * all_magnitude);
      const auto grad = beta.template grad<T>().span();
      bits.emplace_back(grad.begin(), grad.end());
      bits.back().push_back(gain.template grad<T>().data()[0]);
    }
    st::set_num_threads(before);
    CHECK(same_bits(bits[0], bits[1]));
    CHECK(same_bits(bits[0], bits[2]));
  };
  check(std::integral_constant<int, 1>(), 1, 201, 173);
  check(std::integral_constant<int, 3>(), 2, 91, 87);
  check(std::integral_constant<int, 32>(), 3, 33, 47);
  check(std::integral_constant<int, 65>(), 1, 31, 29);
}

TEST_CASE("learned numbers: gradients add up, frozen ones have none, what they start with stays") {
  Scaled<3> net;
  st::initialize(net, 1);
  CHECK(net.beta.value().data()[1] == 0.0f);
  CHECK(net.gamma.value().data()[2] == 1.0f);
  const auto x = random_image<3>(1, 2, 2, 1);
  net.gamma.requires_grad = false;
  const auto step = [&] {
    st::Train pass;
    pass.backward(sum(net(pass, x)));
  };
  step();
  CHECK_FALSE(net.gamma.has_grad());
  const float once = net.beta.grad().data()[1];
  step();
  CHECK(net.beta.grad().data()[1] == 2 * once);
  st::Infer infer;
  const st::Image<3> constant = std::as_const(net)(infer, x).value(), own = net(infer, x).value();
  CHECK(same_bits(constant, own));
  const Scaled<3> copy = net;
  CHECK(copy.beta.starts_at_a_number());
}

TEST_CASE("scalars in expressions") {
  const auto x = random_image<2>(2, 3, 4, 1), y = random_image<2>(2, 3, 4, 2);
  const auto report = st::gradient_check(
      [](auto&, const auto& a, const auto& b) {
        const auto level = mean(square(a)) + 0.5;
        return mean(square(b * level - a / level + (level - b)));
      },
      x, y);
  CHECK_MESSAGE(report.ok(), report.str());
}

TEST_CASE("learned numbers: mistakes are told") {
  st::Parameter beta(st::Shape{1, 3, 1, 1}, 1.0f), vector(st::Shape{3}, 1.0f);
  const auto x = random_image<3>(1, 2, 2, 1);
  CHECK_THROWS_WITH_AS((void)(x * vector),
                       doctest::Contains("an image of 3 channels and a parameter of shape (3): wanted one number, (1), "
                                         "or one for each channel, (3, 1, 1) or (1, 3, 1, 1)"),
                       st::ShapeError);
  CHECK_THROWS_AS((void)(random_image<4>(1, 2, 2, 1) + beta), st::ShapeError);
  CHECK_THROWS_WITH_AS((void)st::Var<3>(x * beta), doctest::Contains("st::as_var(pass, x * parameter)"), st::Error);
  CHECK_THROWS_AS((void)mean(x * beta), st::Error);
  CHECK_NOTHROW((void)st::Var<3>(x * std::as_const(beta)));
  st::Infer infer;
  CHECK_NOTHROW((void)st::Var<3>(infer.output(x) * beta));
  CHECK_NOTHROW((void)st::as_var(infer, x * beta));
  st::Train pass;
  const auto watched = pass.watch(x);
  CHECK_THROWS_WITH_AS((void)(watched * std::as_const(beta)), doctest::Contains("a const parameter in a training pass"),
                       st::Error);
  const auto loss = mean(square(watched * beta));
  beta.value().fill(2.0f);
  CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("a parameter of shape 1x3x1x1 has changed"), st::Error);
  CHECK_THROWS_WITH_AS((void)(random_image<3, double>(1, 2, 2, 1) * beta), doctest::Contains("holds float32"),
                       st::Error);
}
