// Operators on images against PyTorch's: functions, learned numbers, margins and parts, sums and maxima.
#include "nn/operators_golden.hpp"
#include "strata/autograd/spatial.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using operators::check;

namespace {

template <int C>
struct Scaled {
  using io = st::maps<C, C>;
  st::Parameter beta{st::Shape{1, C, 1, 1}, 0.0f}, gain{st::Shape{1}, 0.0f};
  static constexpr void visit(auto& self, auto&& f) {
    f("beta", self.beta);
    f("gain", self.gain);
  }
  static constexpr auto run(auto& self, const auto& x) {
    return x * self.gain + self.beta / (square(x) + 1.0) - self.gain + square(x) * self.beta;
  }
  constexpr auto operator()(auto& pass, const auto& x) { return st::as_var(pass, run(*this, x)); }
  constexpr auto operator()(auto& pass, const auto& x) const { return st::as_var(pass, run(*this, x)); }
};

/// A border in place of a convolution's own, a part of what is computed, and a skip of another size.
struct Bordered {
  using io = st::maps<1, 3>;
  st::Conv2d<1, 2, 3, st::Conv2dOptions{.padding = 0}> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
  template <st::Pass P>
  constexpr auto operator()(P& pass, const auto& x) const {
    const auto y = conv(pass, st::pad(pass, x, {.left = 2, .right = 1, .top = 2, .bottom = 1}, st::PadMode::reflect));
    const auto part = st::crop_like(pass, st::pad(pass, y, {.left = -1, .top = -1}), x);
    return st::cat(pass, part, st::max_over_channels(pass, part));
  }
};

}  // namespace

TEST_CASE("functions and learned numbers equal PyTorch's") {
  check<Scaled<5>, 5>("scaled");
  check<3>("relu_function", [](auto&, const auto& x) { return st::relu(x); });
  check<3>("leaky_relu_function", [](auto&, const auto& x) { return st::leaky_relu(x, 0.2); });
  check<3>("silu_function", [](auto&, const auto& x) { return st::silu(x); });
  check<3>("gelu_function", [](auto&, const auto& x) { return st::gelu(x); });
  check<3>("pow_function", [](auto&, const auto& x) { return st::pow(x, 3); });
}

TEST_CASE("margins and parts equal PyTorch's") {
  check<3>("pad_zeros", [](auto& pass, const auto& x) { return st::pad(pass, x, {.left = 1, .right = 2, .top = 3}); });
  check<3>("pad_negative", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = -1, .right = 2, .top = 1, .bottom = -2});
  });
  check<3>("pad_reflect", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = 3, .right = 2, .top = 1, .bottom = 3}, st::PadMode::reflect);
  });
  check<2>("pad_replicate", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = 3, .right = 6, .top = 1, .bottom = 5}, st::PadMode::replicate);
  });
  check<5>("crop", [](auto& pass, const auto& x) { return st::crop(pass, x, 1, 2, 3, 2); });
  check<3, 2>("crop_like", [](auto& pass, const auto& x, const auto& y) { return st::crop_like(pass, x, y); });
}

TEST_CASE("sums, means and maxima equal PyTorch's") {
  check<5>("mean_over_pixels", [](auto& pass, const auto& x) { return st::mean_over_pixels(pass, x); });
  check<5>("sum_over_pixels", [](auto& pass, const auto& x) { return st::sum_over_pixels(pass, x); });
  check<5>("max_over_pixels", [](auto& pass, const auto& x) { return st::max_over_pixels(pass, x); });
  check<5>("mean_over_channels", [](auto& pass, const auto& x) { return st::mean_over_channels(pass, x); });
  check<5>("sum_over_channels", [](auto& pass, const auto& x) { return st::sum_over_channels(pass, x); });
  check<5>("max_over_channels", [](auto& pass, const auto& x) { return st::max_over_channels(pass, x); });
}

TEST_CASE("operators: facts, and what does not fit") {
  static_assert(st::output_extents<Bordered>(9, 8).h == 9 && st::output_extents<Bordered>(9, 8).w == 8 &&
                st::output_extents<Bordered>(9, 8).c == 3);
  static_assert(st::receptive_field<Bordered> == 3);
  CHECK_FALSE(st::output_extents<Bordered>(2, 8).valid);  // nothing to reflect
  st::Infer pass;
  const Bordered net;
  CHECK(net(pass, st::Image<1>::full(2, 9, 8, 1.0f)).value().shape() == st::Shape{2, 3, 9, 8});
  const auto x = st::Image<2>::full(1, 3, 4, 1.0f);
  CHECK_THROWS_WITH_AS((void)st::pad(pass, x, {.top = 3}, st::PadMode::reflect),
                       doctest::Contains("reflected ones must be smaller than the image"), st::ShapeError);
  CHECK_THROWS_WITH_AS((void)st::pad(pass, x, {.left = -2, .right = -2}), doctest::Contains("no pixels are left"),
                       st::ShapeError);
  CHECK_THROWS_WITH_AS((void)st::crop(pass, x, 1, 0, 3, 4),
                       doctest::Contains("crop: an image of 3 x 4 pixels has no 3 x 4 pixels from row 1"),
                       st::ShapeError);
  CHECK_THROWS_AS((void)st::crop_like(pass, x, st::Image<1>(1, 4, 4)), st::ShapeError);
}
