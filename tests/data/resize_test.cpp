// Bicubic resizing: MATLAB's weights, edges and what follows from them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "golden/resize_golden.hpp"
#include "strata/data/resize.hpp"

namespace st = strata;

namespace {

/// One row of the numbers f(x).
template <class F>
st::Image<1> row(std::int64_t w, F&& f) {
  st::Image<1> image(1, 1, w);
  for (std::int64_t x = 0; x < w; ++x) image(0, 0, 0, x) = float(f(x));
  return image;
}

}  // namespace

TEST_CASE("imresize's weights") {
  // Keys's cubic with a = -0.5 at distances 1/4, 3/4, 5/4, 7/4.
  const double w[4] = {0.8671875, 0.2265625, -0.0703125, -0.0234375};
  // Twice as large: results lie a quarter of a pixel beside the pixels. The answer to an impulse at pixel 8:
  const auto large = st::resize_bicubic(row(17, [](auto x) { return x == 8; }), 1, 34);
  const double up[8] = {w[3], w[2], w[1], w[0], w[0], w[1], w[2], w[3]};
  for (std::int64_t i = 0; i < 8; ++i) CHECK(large(0, 0, 0, 13 + i) == doctest::Approx(up[i]).epsilon(1e-6));
  CHECK(large(0, 0, 0, 12) == 0);
  CHECK(large(0, 0, 0, 21) == 0);
  // Half as large, antialiased: eight pixels count, with half the weights. Results 2 to 6 lie at 4.5, 6.5, 8.5, 10.5,
  // 12.5.
  const auto small = st::resize_bicubic(row(16, [](auto x) { return x == 8; }), 1, 8);
  const double down[5] = {w[3], w[1], w[0], w[2], 0};
  for (std::int64_t i = 0; i < 5; ++i) CHECK(small(0, 0, 0, 2 + i) == doctest::Approx(down[i] / 2).epsilon(1e-6));
}

TEST_CASE("constants stay, straight lines stay inside, edges are mirrored") {
  for (const std::int64_t size : {1, 2, 3, 7, 20, 41}) {
    const auto flat = st::resize_bicubic(row(13, [](auto) { return 0.3; }), size, size);
    for (const float x : flat.span()) CHECK(x == doctest::Approx(0.3).epsilon(1e-6));
  }
  const auto line = st::resize_bicubic(row(20, [](auto x) { return 0.5 * double(x); }), 1, 60);
  for (std::int64_t x = 9; x < 51; ++x)
    CHECK(line(0, 0, 0, x) == doctest::Approx(0.5 * ((double(x) + 0.5) / 3 - 0.5)).epsilon(1e-5));
  // The first result of twice the size: 1/4 before pixel 0; left of it lie pixels 0 and 1 again.
  const auto edge = st::resize_bicubic(row(6, [](auto x) { return double(x * x); }), 1, 12);
  CHECK(edge(0, 0, 0, 0) == doctest::Approx(-0.0703125 * 1 - 0.0234375 * 1).epsilon(1e-5));  // pixels 1, 0, 0, 1
  CHECK_THROWS_AS(st::resize_bicubic(st::Image<1>(), 2, 2), st::ShapeError);
  CHECK_THROWS_AS(st::resize_bicubic(row(4, [](auto) { return 0; }), 0, 2), st::ShapeError);
}

TEST_CASE("inside, Pillow's numbers") {
  st::Image<1> image(1, golden::resize_h, golden::resize_w);
  std::copy(golden::resize_input.begin(), golden::resize_input.end(), image.data());
  for (const golden::Resized& wanted : golden::resized) {
    const auto got = st::resize_bicubic(image, wanted.h, wanted.w);
    // Results whose window of two pixels to each side, widened when shrinking, lies inside.
    const auto inside = [](int at, int size, int from) {
      const double scale = double(from) / size, centre = (at + 0.5) * scale, reach = 2 * std::max(scale, 1.0);
      return centre - reach >= 0.5 && centre + reach <= from - 0.5;
    };
    int compared = 0;
    for (int y = 0; y < wanted.h; ++y)
      for (int x = 0; x < wanted.w; ++x)
        if (inside(y, wanted.h, golden::resize_h) && inside(x, wanted.w, golden::resize_w)) {
          // Weights of at most 2 in all, numbers below 1, rounding in two passes.
          CHECK(std::abs(got(0, 0, y, x) - wanted.values[std::size_t(y * wanted.w + x)]) < 2e-6f);
          ++compared;
        }
    CHECK(compared >= wanted.h * wanted.w / 8);
  }
}
