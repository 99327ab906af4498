#include "strata/data/noisy_patches.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "strata/data/dataset.hpp"

namespace st = strata;

namespace {

// Two images whose pixels tell image and place: image + (row * 100 + column) / 100000.
struct Places {
  static constexpr int channels = 1;
  std::int64_t h = 20, w = 30;
  std::size_t size() const { return 2; }
  st::Image<1> image(std::size_t index) const {
    st::Image<1> picture(1, h, w);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x) picture(0, 0, y, x) = float(index) + float(y * 100 + x) / 1e5f;
    return picture;
  }
  std::string name(std::size_t index) const { return index == 0 ? "zero.png" : "one.png"; }
};

template <int C>
struct Formula {  // that of tests/golden/noisy_image.py
  static constexpr int channels = C;
  std::size_t size() const { return 2; }
  st::Image<C> image(std::size_t) const {
    st::Image<C> picture(1, 5, 7);
    for (std::int64_t y = 0; y < 5; ++y)
      for (std::int64_t x = 0; x < 7; ++x)
        for (int c = 0; c < C; ++c) picture(0, c, y, x) = float((x * 37 + y * 91 + c * 11) % 256) / 255.0f;
    return picture;
  }
};

template <int C>
double deviation(const st::Sample<C>& sample) {
  double sum = 0;
  for (std::int64_t i = 0; i < sample.input.size(); ++i)
    sum += std::pow(double(sample.input.data()[i]) - double(sample.target.data()[i]), 2);
  return std::sqrt(sum / double(sample.input.size())) * 255;
}

template <int C>
bool same(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

}  // namespace

TEST_CASE("NoisyPatches cuts, turns and spoils") {
  const Places source;
  const st::NoisyPatches patches(source, {.patch_size = 8, .patches_per_image = 3, .sigma = 25});
  static_assert(st::Dataset<decltype(patches)>);
  CHECK(patches.size() == 6);
  std::set<float> corners;
  std::set<int> steps;  // from the first pixel to its right neighbour: which way the patch lies
  double total = 0;
  for (std::uint32_t i = 0; i < 300; ++i) {
    st::Rng rng(1, 0, i);
    const auto sample = patches.get(i, rng);
    REQUIRE(sample.target.shape() == st::Shape{1, 1, 8, 8});
    CHECK(int(sample.target(0, 0, 3, 3)) == int(i % 2));
    corners.insert(sample.target(0, 0, 0, 0));
    steps.insert(int(std::lround((sample.target(0, 0, 0, 1) - sample.target(0, 0, 0, 0)) * 1e5f)));
    total += std::pow(deviation(sample), 2) / 300;
  }
  CHECK(corners.size() > 100);
  CHECK(steps.size() >= 4);
  CHECK(std::sqrt(total) == doctest::Approx(25).epsilon(0.02));
}

TEST_CASE("NoisyPatches without augmentation keeps the orientation; size is as told") {
  const st::NoisyPatches patches(Places{}, {.patch_size = 4, .size = 100, .augment = false});
  CHECK(patches.size() == 100);
  for (std::uint32_t i = 0; i < 50; ++i) {
    st::Rng rng(1, 0, i);
    const auto target = patches.get(i, rng).target;
    CHECK(target(0, 0, 0, 1) > target(0, 0, 0, 0));
    CHECK(target(0, 0, 1, 0) > target(0, 0, 0, 3));
  }
  st::Rng a(2), b(2);
  CHECK(same(patches.get(7, a).input, patches.get(7, b).input));
}

TEST_CASE("NoisyPatches with a range of levels") {
  const st::NoisyPatches<1> patches(Places{}, {.patch_size = 20, .sigma_min = 10, .sigma_max = 50});
  double least = 1e9, most = 0;
  for (std::uint32_t i = 0; i < 200; ++i) {
    st::Rng rng(1, 0, i);
    const double level = deviation(patches.get(i, rng));
    least = std::min(least, level);
    most = std::max(most, level);
  }
  CHECK((least > 8 && least < 13));
  CHECK((most > 46 && most < 56));
}

TEST_CASE("NoisyPatches names the image that is smaller than a patch") {
  const st::NoisyPatches patches(Places{.h = 20, .w = 30}, {.patch_size = 21});
  st::Rng rng;
  std::string text;
  try {
    patches.get(1, rng);
  } catch (const st::ShapeError& error) {
    text = error.what();
  }
  CHECK(text.find("one.png: the image has 30x20 pixels, smaller than a patch of 21x21") == 0);
}

TEST_CASE("NoisyPatches refuses options that cannot be meant") {
  const Places source;
  const auto refused = [&](st::NoisyPatchesOptions options) {
    CHECK_THROWS_AS(st::NoisyPatches(source, options), st::ValueError);
  };
  refused({.patch_size = 0});
  refused({.patches_per_image = 0});
  refused({.size = 0});
  refused({.sigma = -1.0f});
  refused({.sigma = std::nanf("")});
  refused({.sigma_min = 5.0f});
  refused({.sigma_min = 6.0f, .sigma_max = 5.0f});
  refused({.sigma = 5.0f, .sigma_min = 5.0f, .sigma_max = 6.0f});
  CHECK_THROWS_AS(st::NoisyPatches(st::MemoryImages<1>({})), st::ValueError);
}

TEST_CASE("NoisyImages adds NumPy's noise, bit for bit") {
  const st::NoisyImages grey(Formula<1>{}, {.sigma = 25});
  const st::NoisyImages colour(Formula<3>{}, {.sigma = 25});
  // Made by tests/golden/noisy_image.py with NumPy 2.4.6.
  const float wanted_grey[] = {0x1.6231ac0000000p-3f, 0x1.ffefbc0000000p-4f, 0x1.063bb00000000p-2f};
  const float wanted_colour[] = {0x1.6231ac0000000p-3f, 0x1.d998dc0000000p-4f, 0x1.533a680000000p-3f};
  for (const std::size_t index : {0u, 1u}) {  // seeded anew for each image
    const auto one = grey.get(index).input;
    CHECK(one(0, 0, 0, 0) == wanted_grey[0]);
    CHECK(one(0, 0, 2, 3) == wanted_grey[1]);
    CHECK(one(0, 0, 4, 6) == wanted_grey[2]);
    const auto three = colour.get(index).input;
    CHECK(three(0, 0, 0, 0) == wanted_colour[0]);
    CHECK(three(0, 2, 2, 3) == wanted_colour[1]);
    CHECK(three(0, 0, 4, 6) == wanted_colour[2]);
  }
}

TEST_CASE("NoisyImages with Philox: other noise for each image, the same at every call") {
  const Formula<3> source;
  const st::NoisyImages images(source, {.sigma = 10, .seed = 3, .generator = st::NoiseGenerator::philox});
  static_assert(st::Dataset<decltype(images)>);
  CHECK(images.name(1) == "image 1");
  CHECK(same(images.get(0).input, images.get(0).input));
  CHECK(!same(images.get(0).input, images.get(1).input));
  CHECK(same(images.get(0).target, source.image(0)));
  CHECK(deviation(images.get(0)) == doctest::Approx(10).epsilon(0.3));
  CHECK_THROWS_AS(st::NoisyImages(source, {.sigma = -1}), st::ValueError);
}
