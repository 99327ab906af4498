#include "strata/data/dead_leaves.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

#include "strata/core/parallel.hpp"
#include "strata/data/image_source.hpp"

namespace st = strata;

static_assert(st::ImageSource<st::DeadLeaves<1>> && st::ImageSource<st::DeadLeaves<3>>);

namespace {

template <int C>
bool same(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

}  // namespace

TEST_CASE("every pixel of a dead-leaves image is drawn, for any size") {
  for (const auto& [h, w] : {std::pair{1, 1}, {1, 9}, {7, 2}, {33, 70}})
    for (const std::int64_t oversampling : {1, 2, 3}) {
      CAPTURE(h);
      CAPTURE(oversampling);
      const st::DeadLeaves<3> leaves({.size = 4, .h = h, .w = w, .oversampling = oversampling});
      for (std::size_t i = 0; i < 4; ++i) {
        const auto image = leaves.image(i);
        CHECK(image.shape() == st::Shape{1, 3, h, w});
        const auto values = image.span();  // the pool fills memory with NaN
        CHECK(std::all_of(values.begin(), values.end(), [](float value) { return value >= 0 && value <= 1; }));
      }
    }
}

TEST_CASE("a dead-leaves image depends on seed and index alone") {
  const st::DeadLeaves<1> leaves({.size = 6, .h = 40, .w = 50, .seed = 3});
  const st::MemoryImages<1> kept{leaves};  // in parallel
  for (std::size_t i = 6; i-- > 0;) CHECK(same(kept.image(i), leaves.image(i)));
  CHECK(!same(leaves.image(0), leaves.image(1)));
  CHECK(same(st::DeadLeaves<1>({.size = 1, .h = 40, .w = 50, .seed = 3}).image(0), leaves.image(0)));
  CHECK(!same(st::DeadLeaves<1>({.size = 1, .h = 40, .w = 50, .seed = 4}).image(0), leaves.image(0)));
  CHECK_THROWS_AS(leaves.image(6), st::ValueError);
}

TEST_CASE("dead leaves look like photographs: few strong edges between much that is smooth") {
  // The differences of neighbouring pixels of photographs have a kurtosis far above the 3 of a normal distribution, and
  // the images differ in lightness.
  const st::DeadLeaves<1> leaves({.size = 24, .h = 96, .w = 96});
  double squares = 0, fourths = 0, count = 0, darkest = 1, brightest = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const auto image = leaves.image(i);
    double mean = 0;
    for (std::int64_t y = 0; y < 96; ++y)
      for (std::int64_t x = 0; x < 96; ++x) {
        mean += double(image(0, 0, y, x)) / (96 * 96);
        if (x == 0) continue;
        const double difference = double(image(0, 0, y, x)) - double(image(0, 0, y, x - 1));
        squares += difference * difference;
        fourths += std::pow(difference, 4);
        ++count;
      }
    darkest = std::min(darkest, mean);
    brightest = std::max(brightest, mean);
  }
  CHECK(fourths * count / (squares * squares) > 9);
  CHECK(squares / count > 0.0005);
  CHECK(brightest - darkest > 0.2);
}

TEST_CASE("without texture leaves are flat") {
  const auto image =
      st::DeadLeaves<1>({.size = 1, .h = 64, .w = 64, .oversampling = 1, .texture = 0, .blur = 0}).image(0);
  std::int64_t equal = 0;
  for (std::int64_t y = 0; y < 64; ++y)
    for (std::int64_t x = 1; x < 64; ++x) equal += image(0, 0, y, x) == image(0, 0, y, x - 1);
  CHECK(equal > 64 * 63 / 2);
  const auto values = image.span();
  CHECK(std::set<float>(values.begin(), values.end()).size() > 1);
}

TEST_CASE("about half the images are out of focus, and the others do not depend on it") {
  const st::DeadLeaves<1> sharp({.size = 40, .h = 24, .w = 24, .blur = 0}), soft({.size = 40, .h = 24, .w = 24});
  int blurred = 0;
  for (std::size_t i = 0; i < sharp.size(); ++i) blurred += !same(sharp.image(i), soft.image(i));
  CHECK(blurred > 8);
  CHECK(blurred < 32);
}

TEST_CASE("options that cannot be meant are refused") {
  CHECK_THROWS_AS(st::DeadLeaves<1>({.size = 0}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.h = 0}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.w = -1}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.oversampling = 0}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.texture = -1}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.texture = std::nanf("")}), st::ValueError);
  CHECK_THROWS_AS(st::DeadLeaves<1>({.blur = -1}), st::ValueError);
}
