// Images of random numbers for the tests.
#pragma once

#include <cstdint>

#include "strata/core/random.hpp"
#include "strata/tensor/image.hpp"

namespace strata_test {

/// Uniform in [low, high).
template <int C, class T = float>
strata::Image<C, T> random_image(std::int64_t n, std::int64_t h, std::int64_t w, std::uint64_t seed, float low = -1,
                                 float high = 1) {
  strata::Image<C, T> image(n, h, w);
  strata::Rng rng(seed);
  for (T& x : image.span()) x = T(rng.uniform(low, high));
  return image;
}

}  // namespace strata_test
