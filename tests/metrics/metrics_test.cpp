#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "metrics/metrics_golden.hpp"
#include "strata/metrics/average_meter.hpp"
#include "strata/metrics/psnr.hpp"
#include "strata/metrics/ssim.hpp"

namespace st = strata;

namespace {

// The formulas of tests/golden/metrics.py.
template <int C>
st::Image<C> picture(std::int64_t h, std::int64_t w, bool noisy) {
  st::Image<C> image(1, h, w);
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x)
      for (int k = 0; k < C; ++k) {
        std::int64_t value = (3 * x + 2 * y + 40 * k + x * y / 16) % 256;
        if (noisy) value += (x * 7919 + y * 104729 + k * 1299709 + x * x * y * 31) % 41 - 20;
        image(0, k, y, x) = float(value) / 255.0f;
      }
  return image;
}

template <int C>
void compare(const MetricGolden& wanted) {
  const auto a = picture<C>(wanted.h, wanted.w, false), b = picture<C>(wanted.h, wanted.w, true);
  const st::MetricOptions protocol{.rounding = wanted.rounded ? st::Rounding::to_8bit : st::Rounding::none,
                                   .border = wanted.border,
                                   .channels = wanted.luma ? st::ColorSpace::bt601_y : st::ColorSpace::rgb};
  CAPTURE(a.shape().str());
  CAPTURE(protocol.str());
  CHECK(std::abs(st::psnr(a, b, protocol) - wanted.psnr) < 1e-10);
  CHECK(std::abs(st::ssim(a, b, protocol) - wanted.ssim) < 1e-10);
  CHECK(std::abs(st::psnr(b, a, protocol) - wanted.psnr) < 1e-10);
}

}  // namespace

TEST_CASE("PSNR and SSIM are scikit-image's") {
  for (const MetricGolden& wanted : metric_golden)
    if (wanted.c == 1)
      compare<1>(wanted);
    else
      compare<3>(wanted);
}

TEST_CASE("the peak scales with the images") {
  const auto a = picture<1>(37, 64, false), b = picture<1>(37, 64, true);
  auto a255 = a.clone(), b255 = b.clone();
  for (float& value : a255.span()) value *= 255;
  for (float& value : b255.span()) value *= 255;
  for (const auto rounding : {st::Rounding::none, st::Rounding::to_8bit}) {
    CHECK(st::psnr(a255, b255, {.peak = 255, .rounding = rounding}) ==
          doctest::Approx(st::psnr(a, b, {.rounding = rounding})).epsilon(1e-6));
    CHECK(st::ssim(a255, b255, {.peak = 255, .rounding = rounding}) ==
          doctest::Approx(st::ssim(a, b, {.rounding = rounding})).epsilon(1e-6));
  }
}

TEST_CASE("a batch gives the mean over its images") {
  const auto a = picture<1>(16, 16, false), b = picture<1>(16, 16, true);
  st::Image<1> first(2, 16, 16), second(2, 16, 16);
  for (std::int64_t i = 0; i < 256; ++i) {
    first.data()[i] = first.data()[256 + i] = a.data()[i];
    second.data()[i] = b.data()[i];
    second.data()[256 + i] = a.data()[i] + 0.1f;
  }
  CHECK(st::psnr(first, second) == doctest::Approx((st::psnr(a, b) + 20.0) / 2).epsilon(1e-6));
  CHECK(st::ssim(first, first) == 1);
}

TEST_CASE("equal images and images with NaN") {
  const auto a = picture<3>(12, 12, false);
  CHECK(st::psnr(a, a) == std::numeric_limits<double>::infinity());
  CHECK(st::ssim(a, a) == 1);
  auto broken = a.clone();
  broken(0, 1, 5, 5) = std::nanf("");
  for (const auto rounding : {st::Rounding::none, st::Rounding::to_8bit}) {
    CHECK(std::isnan(st::psnr(a, broken, {.rounding = rounding})));
    CHECK(std::isnan(st::ssim(a, broken, {.rounding = rounding})));
  }
}

TEST_CASE("images and protocols that do not fit are refused") {
  const auto grey = picture<1>(12, 12, false);
  CHECK_THROWS_AS(st::psnr(grey, picture<1>(12, 11, false)), st::ShapeError);
  CHECK_THROWS_AS(st::psnr(grey, grey, {.border = 6}), st::ShapeError);
  CHECK_THROWS_AS(st::psnr(grey, grey, {.border = -1}), st::ValueError);
  CHECK_THROWS_AS(st::psnr(grey, grey, {.peak = 0}), st::ValueError);
  CHECK_THROWS_AS(st::psnr(grey, grey, {.channels = st::ColorSpace::bt601_y}), st::ValueError);
  CHECK_THROWS_AS(st::psnr(st::Image<1>(), st::Image<1>()), st::ShapeError);
  CHECK_NOTHROW(st::psnr(grey, grey, {.border = 5}));
  CHECK_THROWS_AS(st::ssim(grey, grey, {.border = 1}), st::ShapeError);
}

TEST_CASE("a protocol says what it is") {
  CHECK(st::MetricOptions{}.str() == "peak 1, not rounded, border 0, all channels");
  CHECK(st::MetricOptions{
            .peak = 255, .rounding = st::Rounding::to_8bit, .border = 4, .channels = st::ColorSpace::bt601_y}
            .str() == "peak 255, rounded to 8 bits, border 4, BT.601 Y");
}

TEST_CASE("AverageMeter") {
  st::AverageMeter meter;
  CHECK(std::isnan(meter.mean()));
  CHECK(std::isnan(meter.last()));
  meter.add(1, 3);
  meter.add(5);
  CHECK(meter.mean() == 2);
  CHECK(meter.last() == 5);
  CHECK(meter.count() == 2);
  CHECK_THROWS_AS(meter.add(1, 0), st::ValueError);
  meter.reset();
  CHECK(meter.count() == 0);
  CHECK(std::isnan(meter.mean()));
}
