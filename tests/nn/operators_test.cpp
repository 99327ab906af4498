// Operators on images against PyTorch's: functions, learned numbers, margins and parts, sums and maxima.
#include "autograd/random_image.hpp"
#include "nn/operators_golden.hpp"
#include "strata/autograd/spatial.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/drop_path.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/softmax.hpp"
#include "strata/nn/flatten.hpp"

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
    const auto y =
        conv(pass, st::pad(pass, x, {.left = 2, .right = 1, .top = 2, .bottom = 1}, st::PaddingMode::reflect));
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
  check<st::GELUOf<st::Approximate::tanh>, 3>("gelu_tanh");
  check<3>("gelu_tanh", [](auto&, const auto& x) { return st::gelu<st::Approximate::tanh>(x); });
  check<5, 1>("one_channel", [](auto&, const auto& x, const auto& one) {
    return (x * one + maximum(one, x)) / (square(one) + 1) - one;
  });
  check<3>("pow_function", [](auto&, const auto& x) { return st::pow(x, 3); });
}

TEST_CASE("margins and parts equal PyTorch's") {
  check<3>("pad_zeros", [](auto& pass, const auto& x) { return st::pad(pass, x, {.left = 1, .right = 2, .top = 3}); });
  check<3>("pad_negative", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = -1, .right = 2, .top = 1, .bottom = -2});
  });
  check<3>("pad_reflect", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = 3, .right = 2, .top = 1, .bottom = 3}, st::PaddingMode::reflect);
  });
  check<2>("pad_replicate", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = 3, .right = 6, .top = 1, .bottom = 5}, st::PaddingMode::replicate);
  });
  check<3>("pad_circular", [](auto& pass, const auto& x) {
    return st::pad(pass, x, {.left = 5, .right = 2, .top = 1, .bottom = 4}, st::PaddingMode::circular);
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

TEST_CASE("softmax, lengths and Unflatten equal PyTorch's") {
  check<st::Softmax2d, 5>("softmax");
  check<35>("softmax_wide", [](auto& pass, const auto& x) { return st::softmax(pass, x * 4); });
  check<st::LogSoftmax2d, 5>("log_softmax");
  check<35>("log_softmax_wide", [](auto& pass, const auto& x) { return st::log_softmax(pass, x * 40); });
  for (const std::int64_t pixels : {1, 3}) {
    const auto report = st::gradient_check([](auto& pass, const auto& x) { return st::log_softmax(pass, 3 * x); },
                                           strata_test::random_image<19>(2, 1, pixels, 1));
    CHECK_MESSAGE(report.ok(), report.str());
  }
  check<5>("l2_normalize", [](auto& pass, const auto& x) { return st::l2_normalize(pass, x); });
  check<3>("l2_normalize_eps", [](auto& pass, const auto& x) { return st::l2_normalize(pass, x, 2); });
  check<st::Unflatten<5, 2, 3>, 30>("unflatten");
  static_assert(st::output_extents<st::Unflatten<5, 2, 3>>(1, 1).w == 3 &&
                !st::output_extents<st::Unflatten<5, 2, 3>>(2, 1).valid);
  st::Infer pass;
  CHECK_THROWS_AS((void)(st::Unflatten<5, 2, 3>()(pass, st::Image<30>(1, 2, 1))), st::ShapeError);
}

TEST_CASE("DropPath drops whole images, the same ones for the same step, and nothing in an inference pass") {
  using Drop = st::DropPathOf<std::ratio<1, 4>>;
  Drop drop;
  const auto x = st::Image<3>::full(4000, 2, 1, 1.5f);
  st::Infer infer;
  CHECK(drop(infer, x).value().data()[0] == 1.5f);
  std::int64_t kept = 0;
  st::Train pass({.seed = 3, .step = 7}), again({.seed = 3, .step = 7}), other({.seed = 3, .step = 8});
  const auto watched = pass.watch(x);
  const auto y = drop(pass, watched);
  for (std::int64_t n = 0; n < x.n(); ++n) {
    const float first = y.value().data()[n * 6];
    kept += first != 0;
    for (int k = 0; k < 6; ++k) CHECK(y.value().data()[n * 6 + k] == (first != 0 ? 2.0f : 0.0f));
  }
  CHECK(std::abs(double(kept) / 4000 - 0.75) < 4 * std::sqrt(0.75 * 0.25 / 4000));  // four standard deviations
  const st::Image<3> same = drop(again, x).value(), different = drop(other, x).value();
  CHECK(std::equal(same.data(), same.data() + same.size(), y.value().data()));
  CHECK_FALSE(std::equal(same.data(), same.data() + same.size(), different.data()));
  pass.backward(sum(y));
  const st::Image<3> gradient = pass.gradient(watched);
  for (std::int64_t i = 0; i < gradient.size(); ++i) CHECK(gradient.data()[i] * 1.5f == y.value().data()[i]);
  st::Train without;
  CHECK_THROWS_AS((void)drop(without, x), st::ValueError);
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
  CHECK_THROWS_WITH_AS((void)st::pad(pass, x, {.top = 3}, st::PaddingMode::reflect),
                       doctest::Contains("reflected ones must be smaller than the image"), st::ShapeError);
  CHECK_THROWS_WITH_AS((void)st::pad(pass, x, {.top = 4}, st::PaddingMode::circular),
                       doctest::Contains("circular ones must not be larger than the image"), st::ShapeError);
  static_assert(st::PadMode::constant == st::PaddingMode::zeros);  // older names
  CHECK_THROWS_WITH_AS((void)st::pad(pass, x, {.left = -2, .right = -2}), doctest::Contains("no pixels are left"),
                       st::ShapeError);
  CHECK_THROWS_WITH_AS((void)st::crop(pass, x, 1, 0, 3, 4),
                       doctest::Contains("crop: an image of 3 x 4 pixels has no 3 x 4 pixels from row 1"),
                       st::ShapeError);
  CHECK_THROWS_AS((void)st::crop_like(pass, x, st::Image<1>(1, 4, 4)), st::ShapeError);
}
