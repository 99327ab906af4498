// The largest of some errors, which a test compares with a tolerance.
#pragma once

namespace strata_test {

/// largest = x where x is larger. NaN is larger than all: once it is there it stays, and no comparison holds. (std::max
/// passes over a NaN, and so does a comparison that the next number wins.)
inline void keep_largest(double& largest, double x) {
  const bool whole = largest == largest;
  if (whole && !(x <= largest)) largest = x;
}

}  // namespace strata_test
