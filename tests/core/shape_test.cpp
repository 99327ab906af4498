#include <doctest/doctest.h>

#include "strata/core/shape.hpp"

namespace st = strata;

TEST_CASE("extents by place and by name") {
  constexpr st::Shape shape{2, 3, 5, 7};
  static_assert(shape.size() == 210 && shape.rank() == 4 && shape[2] == 5);
  CHECK(shape.n() == 2);
  CHECK(shape.c() == 3);
  CHECK(shape.h() == 5);
  CHECK(shape.w() == 7);
  CHECK(shape.str() == "2x3x5x7");
  CHECK(st::Shape{}.size() == 1);
  CHECK(st::Shape{}.str() == "scalar");
  CHECK(st::Shape{4}.c() == 1);
  CHECK(st::Shape{4}.w() == 1);
  CHECK(st::Shape{3, 0, 5, 7}.size() == 0);
}

TEST_CASE("shapes are equal when rank and extents are") {
  CHECK(st::Shape{2, 3} == st::Shape{2, 3});
  CHECK(st::Shape{2, 3} != st::Shape{3, 2});
  CHECK(st::Shape{2} != st::Shape{2, 1});
  CHECK(st::Shape{} != st::Shape{1});
}

TEST_CASE("what is no shape") {
  CHECK_THROWS_AS((st::Shape{1, 2, 3, 4, 5}), st::ShapeError);
  CHECK_THROWS_WITH_AS((st::Shape{2, -1}), doctest::Contains("extent 1 is -1"), st::ShapeError);
  const std::int64_t big = std::int64_t{1} << 32;
  CHECK((st::Shape{big, big / 4}).size() == std::int64_t{1} << 62);
  CHECK_THROWS_WITH_AS((st::Shape{big, big / 2}), doctest::Contains("63 bits"), st::ShapeError);
  CHECK_THROWS_AS((st::Shape{big, 1, 1, big}), st::ShapeError);
  CHECK(st::Shape{0, big, big, big}.size() == 0);
  st::Shape shape{1, 2, 3, 4};
  CHECK_THROWS_AS(shape.push_back(1), st::ShapeError);
  CHECK(shape == st::Shape{1, 2, 3, 4});
}
