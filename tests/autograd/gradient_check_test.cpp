// The gradient check itself: right gradients pass, wrong ones are found and named.
#include <doctest/doctest.h>

#include "strata/autograd/custom_op.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

namespace {

st::Image<2> some_image() {
  st::Image<2> image(2, 3, 4);
  st::Rng rng(3);
  for (float& x : image.span()) x = rng.normal();
  return image;
}

/// y = x^3, with a factor of the gradient at one element.
auto cube(double factor_of_last) {
  return [factor_of_last](auto& pass, const auto& x) {
    const auto forward = [](const auto& image) {
      auto y = image.clone();
      for (auto& v : y.span()) v = v * v * v;
      return y;
    };
    const auto backward = [factor_of_last](const auto& gy, const auto&, const auto& image) {
      auto gx = image.clone();
      for (std::int64_t i = 0; i < gx.size(); ++i) gx.data()[i] = 3 * image.data()[i] * image.data()[i] * gy.data()[i];
      gx.data()[gx.size() - 1] *= factor_of_last;
      return gx;
    };
    return st::custom_op(pass, forward, backward, x);
  };
}

struct ScaledBlock {
  using io = st::maps<2, 2>;
  st::Sequential<st::Conv2d<2, 3>, st::ReLU, st::Conv2d<3, 2>> body;
  float scale = 0.1f;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto operator()(auto& pass, const auto& x) { return x + scale * body(pass, x); }
};

/// A convolution whose bias gets twice its gradient.
struct WrongBias {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 2> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
  auto operator()(auto& pass, const auto& x) {
    auto y = conv(pass, x);
    using Y = std::remove_cvref_t<decltype(y)>;
    if constexpr (std::remove_cvref_t<decltype(pass)>::training) {
      auto z = pass.output(y.value());
      pass.tape()->record(z.id(), [this, id = z.id(), y](st::Tape& tape) {
        using T = typename Y::value_type;
        const auto dy = tape.target<T>(y.id());
        std::copy_n(tape.gradient<T>(id), y.size(), dy.data);
        const auto db = conv.bias.template grad_target<T>();
        for (int c = 0; c < 2; ++c)
          for (std::int64_t i = c; i < y.size(); i += 2)
            db.data[c] = (db.accumulate || i > c ? db.data[c] : T(0)) + tape.gradient<T>(id)[i];
      });
      return z;
    } else {
      return y;
    }
  }
};

}  // namespace

TEST_CASE("gradient_check of a function of images") {
  const auto right = st::gradient_check(cube(1.0), some_image());
  CHECK_MESSAGE(right.ok(), right.str());
  CHECK(right.checked == 48);
  CHECK(right.largest_error < 1e-8);

  const auto wrong = st::gradient_check(cube(1.001), some_image());
  CHECK_FALSE(wrong.ok());
  CHECK(wrong.where == "input 0[1, 1, 2, 3]");
  CHECK(wrong.gradient == doctest::Approx(1.001 * wrong.difference_quotient).epsilon(1e-6));
  CHECK(wrong.str().find("WRONG") != std::string::npos);
}

TEST_CASE("gradient_check of a function with two inputs and a scalar result") {
  const auto report =
      st::gradient_check([](auto&, const auto& a, const auto& b) { return mean(square(a * b - a)) + 0.5f * sum(b); },
                         some_image(), some_image());
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK(report.checked == 96);
}

TEST_CASE("gradient_check of a module covers its parameters and leaves the module as it is") {
  ScaledBlock block;
  const auto report = st::GradientCheck({.samples = 0})(block, some_image());
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK(report.checked == 48 + 54 + 3 + 54 + 2);
  CHECK(block.body.layer<0>().weight.value().size() == 54);  // still float
  CHECK_FALSE(block.body.layer<0>().weight.has_grad());

  const auto with_loss = st::gradient_check(
      block, [](const auto& y) { return st::MSELoss{}(y, square(y)); }, some_image());
  CHECK_MESSAGE(with_loss.ok(), with_loss.str());

  block.body.layer<0>().weight.requires_grad = false;
  CHECK(st::GradientCheck({.samples = 0})(block, some_image()).checked == 48 + 3 + 54 + 2);
  CHECK(st::GradientCheck({.samples = 10})(block, some_image()).checked == 10 + 3 + 10 + 2);
}

TEST_CASE("gradient_check names the wrong parameter") {
  const auto report = st::gradient_check(WrongBias{}, some_image());
  CHECK_FALSE(report.ok());
  CHECK(report.where.starts_with("conv.bias["));
  CHECK(report.largest_error == doctest::Approx(0.5));
}

TEST_CASE("gradient_check says where it cannot work") {
  CHECK_THROWS_AS(st::GradientCheck({.step = 0}), st::ValueError);
  CHECK_THROWS_AS(st::GradientCheck({.samples = -1}), st::ValueError);
  const auto constant = [](auto&, const auto& x) { return mean(x.value()); };
  CHECK_THROWS_AS(st::gradient_check(constant, some_image()), st::Error);
}
