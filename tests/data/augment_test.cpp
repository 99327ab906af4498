// Augmentations against torchvision (tests/golden/augment.py), their random draws, mixing and weighted sampling.
#include "largest.hpp"
#include "strata/data/augment.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "augment_golden.hpp"
#include "strata/data/mixup.hpp"
#include "strata/data/weighted_sampler.hpp"

namespace st = strata;

namespace {

/// The picture of augment.py.
st::Image<3> picture() {
  st::Image<3> image(1, 6, 7);
  for (int i = 0; i < 6 * 7 * 3; ++i) image.data()[i] = float((37 * i * i + 11 * i + 5) % 256) / 255.0f;
  return image;
}

template <int C>
double difference(const st::Image<C>& image, const std::vector<float>& wanted) {
  REQUIRE(std::size_t(image.size()) == wanted.size());
  double worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    strata_test::keep_largest(worst, std::abs(double(image.data()[i]) - double(wanted[i])));
  return worst;
}

template <int C>
bool equal(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.size(), b.data());
}

struct Numbers {
  std::size_t count;
  std::size_t size() const { return count; }
  st::Pair<st::Image<1>, st::Label> get(std::size_t index, st::Rng& rng) const {
    return {st::Image<1>::full(1, 1, 1, rng.uniform()), st::Label(index)};
  }
};

}  // namespace

TEST_CASE("resize, colours and rotation are torchvision's") {
  const st::Image<3> image = picture();
  CHECK(difference(st::resize(image, 4, 3), augment_golden::resized_down) < 1e-6);
  CHECK(difference(st::resize(image, 9, 8), augment_golden::resized_up) < 1e-6);
  CHECK(difference(st::adjust_brightness(image, 1.3f), augment_golden::brightness) < 1e-6);
  CHECK(difference(st::adjust_contrast(image, 0.6f), augment_golden::contrast) < 1e-6);
  CHECK(difference(st::adjust_saturation(image, 1.7f), augment_golden::saturation) < 1e-6);
  CHECK(difference(st::adjust_hue(image, -0.3f), augment_golden::hue) < 2e-6);  // a quotient of differences of colours
  CHECK(difference(st::rotate(image, 25, st::Interpolation::nearest, 0.5f), augment_golden::rotated_nearest) < 1e-6);
  CHECK(difference(st::rotate(image, -40, st::Interpolation::bilinear), augment_golden::rotated_bilinear) < 2e-6);
}

TEST_CASE("what changes nothing changes nothing") {
  const st::Image<3> image = picture();
  CHECK(equal(st::resize(image, 6, 7), image));
  CHECK(equal(st::resize(image, 6, 7, st::Interpolation::nearest), image));
  CHECK(equal(st::rotate(image, 0), image));
  CHECK(equal(st::adjust_saturation(image, 1), image));
  CHECK(difference(st::adjust_hue(image, 0), {image.data(), image.data() + image.size()}) < 1e-6);
  st::Rng rng(1);
  const st::Image<3> same = st::color_jitter(image, rng, {});
  CHECK(equal(same, image));
  CHECK(same.data() != image.data());  // a new image all the same
  st::Image<1> square(1, 3, 3);
  for (int i = 0; i < 9; ++i) square.data()[i] = float(i);
  CHECK(equal(st::rotate(square, 90), st::dihedral(square, 1)));  // counter-clockwise, as numpy.rot90
}

TEST_CASE("random_resized_crop: areas and ratios as asked, anywhere; the middle where none fits") {
  std::set<std::int64_t> rows, columns;
  for (std::uint32_t i = 0; i < 500; ++i) {
    st::Rng rng(3, i);
    const st::CropPlace at = st::random_crop_place(40, 60, rng);
    REQUIRE(at.y >= 0);
    REQUIRE(at.x >= 0);
    REQUIRE(at.y + at.h <= 40);
    REQUIRE(at.x + at.w <= 60);
    const double share = double(at.h * at.w) / 2400, ratio = double(at.w) / double(at.h);
    REQUIRE(share > 0.07);
    REQUIRE(ratio > 0.69);  // rounded to whole pixels
    REQUIRE(ratio < 1.45);
    rows.insert(at.y);
    columns.insert(at.x);
  }
  CHECK(rows.size() > 20);
  CHECK(columns.size() > 30);
  st::Rng rng(1);
  const st::CropPlace narrow =
      st::random_crop_place(100, 10, rng, {.scale_min = 0.9, .scale_max = 1});  // no part of that shape is inside
  CHECK(narrow.w == 10);
  CHECK(narrow.h == 13);
  CHECK(narrow.y == 43);
  CHECK_THROWS_AS(st::random_crop_place(4, 4, rng, {.scale_min = 0}), st::ValueError);
  CHECK_THROWS_AS(st::random_crop_place(0, 4, rng), st::ShapeError);
  CHECK_THROWS_AS(st::resize(st::Image<1>(), 2, 2), st::ShapeError);
  CHECK(st::random_resized_crop(picture(), 5, rng).shape() == st::Shape{1, 3, 5, 5});
}

TEST_CASE("an image and its mask are changed alike, and a mask keeps its values") {
  st::Image<3> image(1, 20, 30);
  st::Image<1> mask(1, 20, 30);
  for (std::int64_t y = 0; y < 20; ++y)
    for (std::int64_t x = 0; x < 30; ++x) {
      mask(0, 0, y, x) = x < 15 ? 0.0f : 7 / 255.0f;
      for (int c = 0; c < 3; ++c) image(0, c, y, x) = x < 15 ? 0.0f : 1.0f;
    }
  for (std::uint32_t i = 0; i < 20; ++i) {
    st::Rng rng(2, i);
    st::Pair<st::Image<3>, st::Image<1>> pair{image, mask};
    pair = st::random_resized_crop(pair, 16, rng);
    pair = st::random_horizontal_flip(pair, rng);
    pair = st::random_rotation(pair, 20, rng);
    pair = st::random_crop(pair, 10, rng);
    REQUIRE(pair.target.shape() == st::Shape{1, 1, 10, 10});
    for (std::int64_t y = 0; y < 10; ++y)
      for (std::int64_t x = 0; x < 10; ++x) {
        const float m = pair.target(0, 0, y, x), v = pair.input(0, 0, y, x);
        REQUIRE((m == 0.0f || m == 7 / 255.0f));
        if (v > 0.9f) REQUIRE(m > 0);  // the edge between them is one blurred pixel wide
      }
  }
  st::Rng rng(1);
  const st::Pair<st::Image<3>, st::Image<1>> unlike{image, st::Image<1>(1, 20, 31)};
  CHECK_THROWS_AS(st::random_resized_crop(unlike, 8, rng), st::ShapeError);
}

TEST_CASE("color_jitter and random_erasing: reproducible, within what is asked") {
  const st::Image<3> image = picture();
  st::Rng a(5, 1), b(5, 1), other(5, 2);
  const st::ColorJitterOptions jitter{.brightness = 0.4f, .contrast = 0.4f, .saturation = 0.4f, .hue = 0.1f};
  const st::Image<3> first = st::color_jitter(image, a, jitter);
  CHECK(equal(first, st::color_jitter(image, b, jitter)));
  CHECK_FALSE(equal(first, st::color_jitter(image, other, jitter)));
  for (const float value : first.span()) {
    REQUIRE(value >= 0);
    REQUIRE(value <= 1);
  }
  CHECK_THROWS_AS(st::color_jitter(image, a, {.hue = 0.6f}), st::ValueError);

  int erased = 0;
  for (std::uint32_t i = 0; i < 400; ++i) {
    st::Rng rng(9, i);
    const st::Image<1> out = st::random_erasing(st::Image<1>::full(1, 20, 20, 0.5f), rng);
    const auto gone = std::count(out.data(), out.data() + out.size(), 0.0f);
    if (gone > 0) {
      ++erased;
      REQUIRE(gone < 0.4 * 400);
      REQUIRE(gone >= 4);
    }
  }
  CHECK(erased > 160);
  CHECK(erased < 240);
  st::Rng rng(4);
  const st::Image<1> noise =
      st::random_erasing(st::Image<1>::full(1, 30, 30, 0.5f), rng, {.p = 1, .scale_min = 0.3, .value = {}});
  CHECK(std::any_of(noise.data(), noise.data() + noise.size(), [](float v) { return v < 0; }));
  CHECK_THROWS_AS(st::random_erasing(image, rng, {.p = 2}), st::ValueError);
}

TEST_CASE("mixup and cutmix: each with the one before it, in one proportion, which the labels follow") {
  st::Image<1> images(3, 8, 8);
  st::Tensor<st::Label> labels(st::Shape{3});
  for (int n = 0; n < 3; ++n) {
    labels.data()[n] = n;
    std::fill_n(images.data() + n * 64, 64, float(n));
  }
  double sum = 0, extreme = 0;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    st::Rng rng(6, i);
    const auto mixed = st::mixup(images, labels, rng, {.alpha = 0.2f});
    REQUIRE(mixed.first_share >= 0);
    REQUIRE(mixed.first_share <= 1);
    REQUIRE(mixed.second.data()[0] == 2);
    REQUIRE(mixed.second.data()[1] == 0);
    REQUIRE(mixed.first.data()[1] == 1);
    REQUIRE(mixed.input(1, 0, 3, 3) == doctest::Approx(double(mixed.first_share)));
    REQUIRE(mixed.input(0, 0, 0, 0) == doctest::Approx(2 * (1 - double(mixed.first_share))));
    sum += double(mixed.first_share);
    extreme += mixed.first_share < 0.1f || mixed.first_share > 0.9f;
  }
  CHECK(sum / 2000 == doctest::Approx(0.5).epsilon(0.05));
  CHECK(extreme / 2000 == doctest::Approx(0.6747).epsilon(0.06));  // scipy.stats.beta(0.2, 0.2): 2 * cdf(0.1)
  for (std::uint32_t i = 0; i < 100; ++i) {
    st::Rng rng(7, i);
    const auto mixed = st::cutmix(images, labels, rng);
    const auto other = std::count(mixed.input.data() + 64, mixed.input.data() + 128, 0.0f);
    REQUIRE(mixed.first_share == doctest::Approx(1 - double(other) / 64));
    const auto third = std::count(mixed.input.data() + 128, mixed.input.data() + 192, 1.0f);
    REQUIRE(third == other);
  }
  st::Rng rng(1);
  const auto pair = st::mixup(images, images, rng);
  CHECK(equal(pair.input, pair.target));
  CHECK_THROWS_AS(st::mixup(images, labels, rng, {.alpha = 0}), st::ValueError);
  CHECK_THROWS_AS(st::cutmix(images, st::Tensor<st::Label>(st::Shape{2}), rng), st::ShapeError);
}

TEST_CASE(
    "weighted sampling: as often as the weights say, the same sample for the same generator, and never one of weight "
    "0") {
  const Numbers numbers{4};
  const std::vector<double> weights{1, 0, 3, 0};
  const st::WeightedRandomSampler drawn(numbers, weights, {.num_samples = 4000});
  CHECK(drawn.size() == 4000);
  std::map<st::Label, int> counts;
  for (std::uint32_t i = 0; i < 4000; ++i) {
    st::Rng rng(11, 2, i), again(11, 2, i);
    const auto sample = drawn.get(i, rng);
    ++counts[sample.target];
    const auto same = drawn.get(i, again);
    REQUIRE(sample.target == same.target);
    REQUIRE(sample.input(0, 0, 0, 0) == same.input(0, 0, 0, 0));
  }
  CHECK(counts.size() == 2);
  CHECK(counts[0] > 900);
  CHECK(counts[0] < 1100);
  const std::vector<st::Label> labels{5, 5, 5, 1};
  CHECK(st::balanced_weights(labels) == std::vector<double>{1.0 / 3, 1.0 / 3, 1.0 / 3, 1});
  CHECK(st::WeightedRandomSampler(numbers, std::vector<double>{1, 1, 1, 1}).size() == 4);
  CHECK_THROWS_AS(st::WeightedRandomSampler(numbers, std::vector<double>{1, 1}), st::ValueError);
  CHECK_THROWS_AS(st::WeightedRandomSampler(numbers, std::vector<double>{0, 0, 0, 0}), st::ValueError);
  CHECK_THROWS_AS(st::WeightedRandomSampler(numbers, std::vector<double>{1, -1, 0, 0}), st::ValueError);
  CHECK_THROWS_AS(st::WeightedRandomSampler(numbers, std::vector<double>{1, INFINITY, 0, 0}), st::ValueError);
}
