#include "strata/data/transforms.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace st = strata;

namespace {

// A batch whose elements are all different.
template <int C>
st::Image<C> numbered(std::int64_t n, std::int64_t h, std::int64_t w) {
  st::Image<C> image(n, h, w);
  for (std::int64_t i = 0; i < image.size(); ++i) image.data()[i] = float(i);
  return image;
}

template <int C>
bool same(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

// numpy.rot90 and numpy.fliplr, as their documentation puts them.
template <int C>
st::Image<C> turned_once(const st::Image<C>& image) {
  st::Image<C> out(image.n(), image.w(), image.h());
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = 0; y < image.h(); ++y)
      for (std::int64_t x = 0; x < image.w(); ++x)
        for (int c = 0; c < C; ++c) out(n, c, image.w() - 1 - x, y) = image(n, c, y, x);
  return out;
}
template <int C>
st::Image<C> mirrored(const st::Image<C>& image) {
  st::Image<C> out(image.n(), image.h(), image.w());
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = 0; y < image.h(); ++y)
      for (std::int64_t x = 0; x < image.w(); ++x)
        for (int c = 0; c < C; ++c) out(n, c, y, image.w() - 1 - x) = image(n, c, y, x);
  return out;
}

}  // namespace

TEST_CASE("select") {
  const auto batch = numbered<2>(3, 4, 5);
  const auto one = st::select(batch, 2);
  CHECK(one.shape() == st::Shape{1, 2, 4, 5});
  CHECK(one(0, 1, 3, 4) == batch(2, 1, 3, 4));
  CHECK_THROWS_AS(st::select(batch, 3), st::ValueError);
  CHECK_THROWS_AS(st::select(batch, -1), st::ValueError);
}

TEST_CASE("crop") {
  const auto batch = numbered<3>(2, 7, 9);
  const auto part = st::crop(batch, 2, 3, 5, 6);
  CHECK(part.shape() == st::Shape{2, 3, 5, 6});
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 5; ++y)
        for (std::int64_t x = 0; x < 6; ++x) REQUIRE(part(n, c, y, x) == batch(n, c, y + 2, x + 3));
  CHECK(same(st::crop(batch, 0, 0, 7, 9), batch));
  CHECK_THROWS_AS(st::crop(batch, 3, 0, 5, 1), st::ShapeError);
  CHECK_THROWS_AS(st::crop(batch, 0, -1, 1, 1), st::ShapeError);
  CHECK_THROWS_AS(st::crop(batch, 0, 0, 0, 1), st::ShapeError);
  CHECK_THROWS_AS(st::crop(batch, 0, 1, 1, std::numeric_limits<std::int64_t>::max()), st::ShapeError);
}

TEST_CASE("crop_to_multiple") {
  const auto image = numbered<1>(1, 11, 8);
  CHECK(same(st::crop_to_multiple(image, 4), st::crop(image, 1, 0, 8, 8)));
  CHECK_THROWS_AS(st::crop_to_multiple(image, 9), st::ShapeError);
  CHECK_THROWS_AS(st::crop_to_multiple(image, 0), st::ValueError);
}

TEST_CASE("random_crop reaches every place and none beyond") {
  const auto image = numbered<1>(1, 6, 5);
  std::set<float> places;
  st::Rng rng(1);
  for (int i = 0; i < 500; ++i) {
    const auto part = st::random_crop(image, 4, 3, rng);
    REQUIRE(same(part, st::crop(image, std::int64_t(part.data()[0]) / 5, std::int64_t(part.data()[0]) % 5, 4, 3)));
    places.insert(part.data()[0]);
  }
  CHECK(places.size() == 9);
  CHECK(same(st::random_crop(numbered<1>(1, 4, 4), 4, rng), numbered<1>(1, 4, 4)));
  CHECK_THROWS_AS(st::random_crop(image, 6, rng), st::ShapeError);
}

TEST_CASE("pad is numpy.pad of rows and columns, with zeros and with reflection") {
  const auto image = numbered<2>(2, 4, 5);
  // numpy.pad(range, 2, "reflect")
  const std::int64_t rows[] = {2, 1, 0, 1, 2, 3, 2, 1}, columns[] = {2, 1, 0, 1, 2, 3, 4, 3, 2};
  const auto reflected = st::pad(image, 2, st::CropPadding::reflect), zeros = st::pad(image, 2);
  REQUIRE(reflected.shape() == st::Shape{2, 2, 8, 9});
  REQUIRE(zeros.shape() == reflected.shape());
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 2; ++c)
      for (std::int64_t y = 0; y < 8; ++y)
        for (std::int64_t x = 0; x < 9; ++x) {
          REQUIRE(reflected(n, c, y, x) == image(n, c, rows[y], columns[x]));
          const bool inside = y >= 2 && y < 6 && x >= 2 && x < 7;
          REQUIRE(zeros(n, c, y, x) == (inside ? image(n, c, y - 2, x - 2) : 0.0f));
        }
  CHECK(same(st::pad(image, 0), image));
  CHECK(st::pad(image, 3, st::CropPadding::reflect).shape() == st::Shape{2, 2, 10, 11});
  CHECK_THROWS_AS(st::pad(image, 4, st::CropPadding::reflect), st::ShapeError);
  CHECK_THROWS_AS(st::pad(image, -1), st::ValueError);
  CHECK_THROWS_AS(st::pad(image, std::numeric_limits<std::int64_t>::max()), st::ValueError);
}

TEST_CASE("random_crop with padding reaches every place of the padded image") {
  auto image = numbered<1>(1, 4, 4);
  for (float& value : image.span()) value += 1;
  for (const auto mode : {st::CropPadding::zeros, st::CropPadding::reflect}) {
    const auto padded = st::pad(image, 1, mode);
    std::set<std::vector<float>> seen, wanted;
    const auto values = [](const st::Image<1>& part) {
      return std::vector<float>(part.span().begin(), part.span().end());
    };
    for (std::int64_t y = 0; y < 3; ++y)
      for (std::int64_t x = 0; x < 3; ++x) wanted.insert(values(st::crop(padded, y, x, 4, 4)));
    st::Rng rng(5);
    for (int i = 0; i < 300; ++i)
      seen.insert(values(st::random_crop(image, 4, rng, {.padding = 1, .padding_mode = mode})));
    CHECK(wanted.size() == 9);
    CHECK(seen == wanted);
  }
  st::Rng rng;
  CHECK_THROWS_AS(st::random_crop(image, 5, rng, {}), st::ShapeError);
}

TEST_CASE("random_horizontal_flip mirrors with its probability, input and target alike") {
  const auto image = numbered<2>(2, 2, 3);
  st::Rng rng(6);
  int flips = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto turned = st::random_horizontal_flip(image, rng, 0.3f);
    const bool flipped = !same(turned, image);
    if (flipped) REQUIRE(same(turned, mirrored(image)));
    flips += flipped;
    const auto both = st::random_horizontal_flip(st::Sample<2>{image, image}, rng);
    REQUIRE(same(both.input, both.target));
  }
  CHECK(std::abs(flips - 300) < 4 * std::sqrt(1000 * 0.3 * 0.7));
  CHECK(same(st::random_horizontal_flip(image, rng, 0), image));
  CHECK(same(st::random_horizontal_flip(image, rng, 1), mirrored(image)));
  CHECK_THROWS_AS(st::random_horizontal_flip(image, rng, 1.5f), st::ValueError);
}

TEST_CASE("normalize") {
  const auto image = numbered<3>(1, 1, 2);
  const auto out = st::normalize(image, {1, 2, 3}, {2, 4, 0.5f});
  const float wanted[] = {-0.5f, -0.25f, -2, 1, 0.5f, 4};
  for (int i = 0; i < 6; ++i) CHECK(out.data()[i] == wanted[i]);
  CHECK_THROWS_WITH_AS(st::normalize(image, {1, 2, 3}, {2, 0, 1}), doctest::Contains("channel 1 has mean 2 and std 0"),
                       st::ValueError);
  CHECK_THROWS_AS(st::normalize(image, {1, 2, std::nanf("")}, {2, 1, 1}), st::ValueError);
}

TEST_CASE("random_crop of a sample takes the same place of both") {
  const auto input = numbered<1>(1, 6, 7);
  st::Image<1> target(1, 12, 14);
  for (std::int64_t y = 0; y < 12; ++y)
    for (std::int64_t x = 0; x < 14; ++x) target(0, 0, y, x) = input(0, 0, y / 2, x / 2);
  st::Rng rng(2);
  for (int i = 0; i < 20; ++i) {
    const auto part = st::random_crop(st::Sample<1>{input, target}, 3, rng);
    CHECK(part.target.shape() == st::Shape{1, 1, 6, 6});
    CHECK(same(st::downsample(part.target, 2), part.input));
  }
  CHECK_THROWS_AS(st::random_crop(st::Sample<1>{input, numbered<1>(1, 12, 13)}, 3, rng), st::ShapeError);
  CHECK_THROWS_AS(st::random_crop(st::Sample<1>{input, input}, 7, rng), st::ShapeError);
}

TEST_CASE("dihedral gives the eight orientations, and the inverse undoes them") {
  const auto check = [](const auto& image) {
    for (int k = 0; k < 8; ++k) {
      CAPTURE(k);
      auto wanted = k >= 4 ? mirrored(image) : image;
      for (int turn = 0; turn < k % 4; ++turn) wanted = turned_once(wanted);
      CHECK(same(st::dihedral(image, k), wanted));
      CHECK(same(st::dihedral(st::dihedral(image, k), st::dihedral_inverse(k)), image));
    }
  };
  check(numbered<1>(1, 3, 5));
  check(numbered<3>(2, 4, 4));
  check(numbered<2>(2, 1, 6));
  CHECK(same(st::dihedral<5>(numbered<1>(1, 3, 5)), st::dihedral(numbered<1>(1, 3, 5), 5)));
  CHECK_THROWS_AS(st::dihedral(numbered<1>(1, 3, 5), 8), st::ValueError);
}

TEST_CASE("add_gaussian_noise has the mean and the deviation asked for") {
  const auto flat = st::Image<1>::full(1, 200, 200, 0.5f);
  st::Rng rng(3);
  const auto noisy = st::add_gaussian_noise(flat, 0.1f, rng);
  double sum = 0, squares = 0;
  for (const float value : noisy.span()) {
    sum += double(value) - 0.5;
    squares += (double(value) - 0.5) * (double(value) - 0.5);
  }
  CHECK(std::abs(sum / 40000) < 4 * 0.1 / 200);  // four deviations of the mean
  CHECK(std::abs(squares / 40000 - 0.01) < 4 * 0.01 * std::sqrt(2.0) / 200);
  CHECK(flat(0, 0, 7, 7) == 0.5f);
  CHECK(same(st::add_gaussian_noise(flat, 0, rng), flat));
  CHECK_THROWS_AS(st::add_gaussian_noise(flat, -0.1f, rng), st::ValueError);
  CHECK_THROWS_AS(st::add_gaussian_noise(flat, std::nanf(""), rng), st::ValueError);
}

TEST_CASE("clamp, round_to_8bit, luma") {
  st::Image<3> image(1, 1, 2);
  const float values[] = {-1.0f, 0.5f, 2.0f, 10.4f / 255, 10.6f / 255, 1.0f};
  std::copy(std::begin(values), std::end(values), image.data());
  const auto clamped = st::clamp(image);
  CHECK(clamped.data()[0] == 0);
  CHECK(clamped.data()[1] == 0.5f);
  CHECK(clamped.data()[2] == 1);
  CHECK(st::clamp(image, -0.5f, 1.5f).data()[2] == 1.5f);
  CHECK_THROWS_AS(st::clamp(image, 1.0f, 0.0f), st::ValueError);
  const auto rounded = st::round_to_8bit(image);
  const int wanted[] = {0, 128, 255, 10, 11, 255};  // 127.5 goes to the even neighbour
  for (int i = 0; i < 6; ++i) CHECK(rounded.data()[i] == float(wanted[i]) / 255);
  const auto grey = st::luma(image);
  CHECK(grey.shape() == st::Shape{1, 1, 1, 2});
  CHECK(grey.data()[0] == doctest::Approx(-0.299 + 0.587 * 0.5 + 0.114 * 2).epsilon(1e-6));
}

TEST_CASE("downsample is the mean over squares") {
  const auto image = numbered<2>(2, 6, 9);
  const auto small = st::downsample(image, 3);
  CHECK(small.shape() == st::Shape{2, 2, 2, 3});
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 2; ++c)
      for (std::int64_t y = 0; y < 2; ++y)
        for (std::int64_t x = 0; x < 3; ++x) {
          double mean = 0;
          for (std::int64_t i = 0; i < 9; ++i) mean += double(image(n, c, 3 * y + i / 3, 3 * x + i % 3)) / 9;
          CHECK(double(small(n, c, y, x)) == doctest::Approx(mean).epsilon(1e-6));
        }
  CHECK(same(st::downsample(image, 1), image));
  CHECK_THROWS_AS(st::downsample(image, 2), st::ShapeError);
  CHECK_THROWS_AS(st::downsample(image, 0), st::ValueError);
}

TEST_CASE("a Gaussian blur is the sum over both directions, borders going on") {
  const auto image = numbered<2>(2, 5, 7);
  for (const float sigma : {0.3f, 0.8f, 3.0f}) {
    const auto reach = std::int64_t(std::ceil(3 * sigma));
    const auto weight = [&](std::int64_t i) { return std::exp(-double(i * i) / (2 * double(sigma) * double(sigma))); };
    double sum = 0;
    for (std::int64_t i = -reach; i <= reach; ++i) sum += weight(i);
    const auto blurred = st::gaussian_blur(image, sigma);
    REQUIRE(blurred.shape() == image.shape());
    for (std::int64_t n = 0; n < 2; ++n)
      for (int c = 0; c < 2; ++c)
        for (std::int64_t y = 0; y < 5; ++y)
          for (std::int64_t x = 0; x < 7; ++x) {
            double wanted = 0;
            for (std::int64_t i = -reach; i <= reach; ++i)
              for (std::int64_t j = -reach; j <= reach; ++j)
                wanted +=
                    weight(i) * weight(j) / (sum * sum) *
                    double(image(n, c, std::clamp<std::int64_t>(y + i, 0, 4), std::clamp<std::int64_t>(x + j, 0, 6)));
            CHECK(double(blurred(n, c, y, x)) == doctest::Approx(wanted).epsilon(1e-5));
          }
  }
  CHECK(same(st::gaussian_blur(image, 0), image));
  CHECK_THROWS_AS(st::gaussian_blur(image, -1), st::ValueError);
  CHECK_THROWS_AS(st::gaussian_blur(image, std::nanf("")), st::ValueError);
}
