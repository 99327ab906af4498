#include "largest.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

TEST_CASE("the largest error is NaN wherever one was") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double kinds[][3] = {{nan, 1, 2}, {1, nan, 2}, {1, 2, nan}};
  for (const auto& errors : kinds) {
    double largest = 0;
    for (const double x : errors) strata_test::keep_largest(largest, x);
    CHECK(std::isnan(largest));
    CHECK_FALSE(largest <= 1e30);
  }
  double largest = 0;
  for (const double x : {1.0, 3.0, 2.0}) strata_test::keep_largest(largest, x);
  CHECK(largest == 3);
}
