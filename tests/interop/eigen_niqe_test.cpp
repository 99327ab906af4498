// NIQE against numpy's (tests/golden/niqe.py), and its steps against their formulas.
#include "strata/metrics/niqe.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "interop/niqe_golden.hpp"
#include "strata/core/output_file.hpp"
#include "strata/core/parallel.hpp"
#include "strata/data/resize.hpp"
#include "message_of.hpp"
#include "temporary_folder.hpp"

namespace st = strata;

namespace {

std::int64_t hashed(std::int64_t x, std::int64_t y, int seed) {
  std::uint32_t u = (std::uint32_t(x) * 73856093u) ^ (std::uint32_t(y) * 19349663u) ^ (std::uint32_t(seed) * 83492791u);
  u = (u ^ (u >> 13)) * 1274126177u;
  return (u ^ (u >> 16)) & 255u;
}

std::int64_t floor_divided(std::int64_t a, std::int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The formulas of tests/golden/niqe.py.
st::Image<1> picture(std::int64_t h, std::int64_t w, int seed, std::int64_t blur = 0, bool flat = false) {
  std::vector<std::int64_t> v(std::size_t(h * w));
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      const std::int64_t contrast = (x / 96 + y / 96 + seed) % 3 + 2;
      const std::int64_t sum =
          4 * hashed(x / 8, y / 8, seed) + 3 * hashed(x / 3, y / 3, seed + 1) + 2 * hashed(x, y, seed + 2);
      v[std::size_t(y * w + x)] = 128 + floor_divided((sum - 9 * 128) * contrast, 36);
    }
  st::Image<1> out(1, h, w);
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      std::int64_t sum = 0;
      for (std::int64_t i = -blur; i <= blur; ++i)
        for (std::int64_t j = -blur; j <= blur; ++j)
          sum +=
              v[std::size_t(std::clamp<std::int64_t>(y + i, 0, h - 1) * w + std::clamp<std::int64_t>(x + j, 0, w - 1))];
      std::int64_t value = floor_divided(sum, (2 * blur + 1) * (2 * blur + 1));
      if (flat && y < 200 && x < 200) value = 77;
      out(0, 0, y, x) = float(std::clamp<std::int64_t>(value, 0, 255)) / 255.0f;
    }
  return out;
}

struct Pristine {
  static constexpr int channels = 1;
  std::size_t size() const { return std::size(niqe_pristine); }
  st::Image<1> image(std::size_t i) const {
    return picture(niqe_pristine[i][0], niqe_pristine[i][1], niqe_pristine[i][2]);
  }
};

const st::NiqeModel& model() {
  static const st::NiqeModel fitted = st::fit_niqe(Pristine{});
  return fitted;
}

struct Few {
  std::size_t count;
  st::Image<1> shown;
  std::size_t size() const { return count; }
  st::Image<1> image(std::size_t) const { return shown; }
  std::string name(std::size_t i) const { return "p" + std::to_string(i) + ".png"; }
};

}  // namespace

TEST_CASE("NIQE is numpy's: the model, and pictures that are sharp, blurred, and flat in part") {
  for (int k = 0; k < 36; ++k) {
    CAPTURE(k);
    CHECK(model().mean(k) == doctest::Approx(niqe_mean[k]).epsilon(1e-9));
    CHECK(model().covariance(k, k) == doctest::Approx(niqe_variances[k]).epsilon(1e-7));
  }
  for (const NiqePicture& wanted : niqe_measured) {
    CAPTURE(wanted.seed);
    const auto image = picture(wanted.h, wanted.w, wanted.seed, wanted.blur, wanted.flat);
    CHECK(st::niqe(image, model()) == doctest::Approx(wanted.niqe).epsilon(1e-6));
  }
}

TEST_CASE("NIQE's steps are the paper's formulas") {
  const auto image = picture(101, 103, 3);
  st::detail::NiqePlane plane{101, 103, {}}, deviation;
  for (const float value : image.span()) plane.values.push_back(double(value) * 255);
  const auto normalised = st::detail::niqe_normalised(plane, deviation);
  double worst = 0;
  for (std::int64_t y = 0; y < plane.h; ++y)
    for (std::int64_t x = 0; x < plane.w; ++x) {
      double weights = 0, mean = 0, square = 0;
      for (int i = -3; i <= 3; ++i)
        for (int j = -3; j <= 3; ++j) {
          const double weight = std::exp(-(i * i + j * j) / (2 * (7.0 / 6) * (7.0 / 6)));
          const double value =
              plane.row(std::clamp<std::int64_t>(y + i, 0, 100))[std::clamp<std::int64_t>(x + j, 0, 102)];
          weights += weight, mean += weight * value, square += weight * value * value;
        }
      mean /= weights;
      const double sigma = std::sqrt(square / weights - mean * mean);
      worst = std::max(worst, std::abs(deviation.row(y)[x] - sigma));
      worst = std::max(worst, std::abs(normalised.row(y)[x] - (plane.row(y)[x] - mean) / (sigma + 1)));
    }
  CHECK(worst < 1e-9);

  st::detail::NiqePlane even{96, 98, {}};
  st::Image<1> small(1, 96, 98);
  for (std::int64_t i = 0; i < 96 * 98; ++i) small.data()[i] = image.data()[i];
  for (const float value : small.span()) even.values.push_back(double(value));
  const auto half = st::detail::niqe_halved(even);
  const auto resized = st::resize_bicubic(small, 48, 49);
  REQUIRE(half.values.size() == std::size_t(resized.size()));
  for (std::int64_t i = 0; i < resized.size(); ++i)
    CHECK(std::abs(half.values[std::size_t(i)] - double(resized.data()[i])) < 1e-7);
}

TEST_CASE("a distribution whose parameters are known is fitted by them") {
  // Quantiles of two halves of normal distributions: shape 2, beta = sqrt(2) standard deviations. The sides' numbers
  // are as their widths.
  std::vector<double> numbers;
  const auto half_normal = [&](double deviation, int count, double sign) {
    for (int i = 0; i < count; ++i) {  // the inverse of erf by bisection
      const double wanted = (i + 0.5) / count;
      double low = 0, high = 8;
      for (int step = 0; step < 60; ++step) (std::erf((low + high) / 2) < wanted ? low : high) = (low + high) / 2;
      numbers.push_back(sign * deviation * std::sqrt(2.0) * low);
    }
  };
  half_normal(0.5, 5000, -1);
  half_normal(1.5, 15000, 1);
  const auto got = st::detail::AsymmetricFit{}(std::int64_t(numbers.size()),
                                               [&](std::int64_t i) { return numbers[std::size_t(i)]; });
  CHECK(got.shape == doctest::Approx(2).epsilon(2e-3));
  CHECK(got.left == doctest::Approx(0.5 * std::sqrt(2.0)).epsilon(2e-3));
  CHECK(got.right == doctest::Approx(1.5 * std::sqrt(2.0)).epsilon(2e-3));
}

TEST_CASE("NIQE: the same bits for any number of threads, worse pictures score worse, batches are means") {
  const auto sharp = picture(200, 300, 31), blurred = picture(200, 300, 31, 2);
  const int before = st::num_threads();
  st::set_num_threads(1);
  const double one = st::niqe(sharp, model());
  for (const int threads : {2, 3}) {
    st::set_num_threads(threads);
    CHECK(st::niqe(sharp, model()) == one);
  }
  st::set_num_threads(before);
  const double worse = st::niqe(blurred, model());
  CHECK(worse > 2 * one);
  st::Image<1> both(2, 200, 300);
  std::copy(sharp.span().begin(), sharp.span().end(), both.data());
  std::copy(blurred.span().begin(), blurred.span().end(), both.data() + sharp.size());
  CHECK(st::niqe(both, model()) == doctest::Approx((one + worse) / 2).epsilon(1e-14));
}

TEST_CASE("NIQE's protocol: border, peak, rounding, luma") {
  const auto sharp = picture(208, 308, 31);
  st::Image<1> inner(1, 200, 300), loud(1, 208, 308), between(1, 208, 308);
  st::Image<3> colour(1, 208, 308);
  for (std::int64_t y = 0; y < 208; ++y)
    for (std::int64_t x = 0; x < 308; ++x) {
      const float value = sharp(0, 0, y, x);
      if (y >= 4 && y < 204 && x >= 4 && x < 304) inner(0, 0, y - 4, x - 4) = value;
      loud(0, 0, y, x) = 255 * value;
      between(0, 0, y, x) = value + 0.3f / 255;
      for (int c = 0; c < 3; ++c) colour(0, c, y, x) = value;
    }
  const double wanted = st::niqe(sharp, model());
  CHECK(st::niqe(sharp, model(), {.border = 4}) == st::niqe(inner, model()));
  CHECK(st::niqe(loud, model(), {.peak = 255}) == doctest::Approx(wanted).epsilon(1e-12));
  CHECK(st::niqe(between, model()) == wanted);
  CHECK(st::niqe(between, model(), {.rounding = st::Rounding::none}) != wanted);
  st::Image<1> luma(1, 208, 308);  // of grey: 16 to 235
  for (std::int64_t i = 0; i < luma.size(); ++i)
    luma.data()[i] = float(std::nearbyint(16 + 219 * double(sharp.data()[i])) / 255);
  CHECK(st::niqe(colour, model(), {.channels = st::ColorSpace::bt601_y}) == doctest::Approx(st::niqe(luma, model())));
}

TEST_CASE("NIQE's model is kept in a file") {
  const strata_test::TemporaryFolder folder;
  const auto path = folder.path() / "niqe.safetensors";
  st::save_niqe(path, model());
  const st::NiqeModel again = st::load_niqe(path);
  CHECK(again.mean == model().mean);
  CHECK(again.covariance == model().covariance);

  const auto write = [&](st::Tensor<double> mean, st::Tensor<double> covariance) {
    const st::AnyTensor first(std::move(mean)), second(std::move(covariance));
    st::write_safetensors(path, {{"mu_pris_param", &first}, {"cov_pris_param", &second}});
  };
  const auto identity = [](std::int64_t size) {
    auto out = st::Tensor<double>::zeros(st::Shape{size, size});
    for (std::int64_t i = 0; i < size; ++i) out.data()[i * size + i] = 1;
    return out;
  };
  const auto ones = st::Tensor<double>::full(st::Shape{36}, 1);
  write(ones, identity(36));
  CHECK_NOTHROW(st::load_niqe(path));
  write(ones, identity(35));
  const std::string words = strata_test::message_of([&] { st::load_niqe(path); });
  CHECK(words.find(": cov_pris_param has the shape ") != std::string::npos);
  CHECK(words.find(", wanted 1296 numbers") != std::string::npos);
  auto crooked = identity(36);
  crooked.data()[1] = 0.5;
  write(ones, crooked);
  CHECK(strata_test::message_of([&] { st::load_niqe(path); }).find("are no mean and covariance") != std::string::npos);
  write(st::Tensor<double>::full(st::Shape{36}, std::numeric_limits<double>::infinity()), identity(36));
  CHECK(strata_test::message_of([&] { st::load_niqe(path); }).find("are no mean and covariance") != std::string::npos);
  const st::AnyTensor only(identity(36));
  st::write_safetensors(path, {{"weight", &only}});
  CHECK(strata_test::message_of([&] {
          st::load_niqe(path);
        }).find("has no tensor mu_pris_param, so it is no model of NIQE's") != std::string::npos);
  st::write_file(path, "PK\x03\x04 something else");
  CHECK_THROWS_AS(st::load_niqe(path), st::FileError);
}

TEST_CASE("what NIQE cannot measure is refused in a sentence") {
  const auto image = picture(192, 200, 2);
  CHECK(strata_test::message_of([&] { st::niqe(picture(95, 400, 2), model()); }) ==
        "niqe: got 95 x 400 pixels with a border of 0, wanted at least a block of 96 x 96");
  CHECK(strata_test::message_of([&] { st::niqe(image, model(), {.border = 49}); }).find("with a border of 49") !=
        std::string::npos);
  CHECK(strata_test::message_of([&] { st::niqe(picture(96, 100, 2), model()); }) ==
        "niqe: got 1 of 1 blocks of 96 x 96 pixels with texture, wanted at least two, for a covariance");
  CHECK(strata_test::message_of([&] {
          st::niqe(st::Image<1>::full(1, 192, 192, 0.5f), model());
        }).find("got 0 of 4 blocks") != std::string::npos);
  CHECK(strata_test::message_of([&] { st::niqe(st::Image<3>::full(1, 192, 192, 0.5f), model()); }) ==
        "niqe: got RGB, wanted one channel: give {.channels = st::ColorSpace::bt601_y} for its luma");
  CHECK_THROWS_AS(st::niqe(image, model(), {.channels = st::ColorSpace::bt601_y}), st::ValueError);
  CHECK_THROWS_AS(st::niqe(image, model(), {.peak = 0}), st::ValueError);
  CHECK_THROWS_AS(st::niqe(image, st::NiqeModel{}), st::ShapeError);
  CHECK_THROWS_AS(st::niqe(st::Image<1>(), model()), st::ShapeError);
  auto broken = image.clone();
  broken(0, 0, 5, 5) = std::nanf("");
  CHECK_THROWS_AS(st::niqe(broken, model()), st::NumericError);

  CHECK(strata_test::message_of([&] { st::fit_niqe(Few{3, image}); }).find("fit_niqe: got ") == 0);
  CHECK(strata_test::message_of([&] {
          st::fit_niqe(Few{3, picture(90, 90, 1)});
        }) == "niqe: p0.png: got 90 x 90 pixels with a border of 0, wanted at least a block of 96 x 96");
  CHECK_THROWS_AS(st::fit_niqe(Few{0, image}), st::ShapeError);
  CHECK_THROWS_AS(st::fit_niqe(Pristine{}, {.sharpness = 1}), st::ValueError);
}
