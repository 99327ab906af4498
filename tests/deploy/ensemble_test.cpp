// Orientations and the self-ensemble; the estimate of noise.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>

#include "strata/core/random.hpp"
#include "strata/data/transforms.hpp"
#include "strata/deploy/ensemble.hpp"
#include "strata/deploy/noise_level.hpp"

namespace st = strata;

namespace {

st::Image<2> picture(std::int64_t h, std::int64_t w) {
  st::Image<2> image(1, h, w);
  st::Rng rng(1, 2, 3);
  for (float& x : image.span()) x = rng.uniform();
  return image;
}

}  // namespace

TEST_CASE("orientations are those of the data's") {
  const auto image = picture(5, 8);
  for (int k = 0; k < 8; ++k) {
    const auto turned = st::dihedral(image, k);
    const st::Orientation turn{k, image.h(), image.w()};
    REQUIRE(turn.out_h() == turned.h());
    REQUIRE(turn.out_w() == turned.w());
    for (std::int64_t y = 0; y < turned.h(); ++y)
      for (std::int64_t x = 0; x < turned.w(); ++x) {
        const auto [row, column] = turn.source(y, x);
        CHECK(turned(0, 1, y, x) == image(0, 1, row, column));
      }
  }
}

TEST_CASE("the ensemble turns back what it turns") {
  const auto image = picture(5, 8);
  const auto same = st::self_ensemble(image, [](const st::Image<2>& x) { return x.clone(); });
  REQUIRE(same.shape() == image.shape());
  for (std::int64_t i = 0; i < image.size(); ++i)
    CHECK(same.data()[i] == doctest::Approx(double(image.data()[i])).epsilon(1e-6));
  // What a run does in one direction becomes the mean of all: a shift to the right spreads to the four neighbours.
  st::Image<1> point = st::Image<1>::full(1, 7, 9, 0);
  point(0, 0, 3, 4) = 1;
  const auto spread = st::self_ensemble(point, [](const st::Image<1>& x) {
    st::Image<1> y = st::Image<1>::full(1, x.h(), x.w(), 0);
    for (std::int64_t i = 0; i < x.h(); ++i)
      for (std::int64_t j = 1; j < x.w(); ++j) y(0, 0, i, j) = x(0, 0, i, j - 1);
    return y;
  });
  for (std::int64_t y = 0; y < 7; ++y)
    for (std::int64_t x = 0; x < 9; ++x)
      CHECK(spread(0, 0, y, x) == (std::abs(y - 3) + std::abs(x - 4) == 1 ? 0.25f : 0.0f));
}

// The estimate's own error: with some ten thousand patches of 64 pixels it is a few percent (Chen, Zhu and Heng, table
// 1).
TEST_CASE("the noise level of a scene of surfaces and edges") {
  st::Image<1> scene(1, 160, 200);
  for (std::int64_t y = 0; y < scene.h(); ++y)
    for (std::int64_t x = 0; x < scene.w(); ++x)
      scene(0, 0, y, x) =
          0.5f + 0.2f * std::sin(float(x) / 17) * std::cos(float(y) / 23) + ((x / 40 + y / 30) % 2 ? 0.2f : 0.0f);
  for (const float sigma : {2.0f, 10.0f, 25.0f, 50.0f}) {
    st::Rng rng(std::uint64_t(sigma), 0, 0);
    const auto noisy = st::add_gaussian_noise(scene, sigma / 255, rng);
    CHECK(255 * double(st::estimate_noise(noisy)) == doctest::Approx(double(sigma)).epsilon(0.08));
  }
  CHECK(st::estimate_noise(st::Image<1>::full(1, 40, 40, 0.5f)) < 1e-6f);
  CHECK_THROWS_AS(st::estimate_noise(st::Image<1>::full(1, 15, 40, 0.5f)), st::ShapeError);
  CHECK_THROWS_AS(st::estimate_noise(st::Image<1>::full(2, 40, 40, 0.5f)), st::ValueError);
}
