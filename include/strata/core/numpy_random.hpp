// NumPy's legacy generator, numpy.random.RandomState(seed), to the last bit: published figures of denoisers often add
// noise made after numpy.random.seed(0), and only the same numbers give the same decibels.
//
//     st::NumpyRandom random(0);
//     double x = random.normal(0, 25.0 / 255);        // numpy.random.seed(0); numpy.random.normal(0, 25 / 255)
//
// MT19937 (Matsumoto and Nishimura 1998) seeded by its own init_genrand; doubles of 53 bits; Gaussians by Marsaglia's
// polar method, the second of each pair kept for the next call.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>

#include "strata/core/config.hpp"
#include "strata/core/rounded.hpp"

namespace strata::inline STRATA_ABI {

class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : engine_(seed) {}

  /// numpy.random.random_sample(): uniform in [0, 1), 53 bits.
  double uniform() {
    const auto high = double(std::uint32_t(engine_()) >> 5);
    const auto low = double(std::uint32_t(engine_()) >> 6);
    return (high * 67108864.0 + low) / 9007199254740992.0;  // exact, also when fused
  }

  /// numpy.random.standard_normal().
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double x, y, square;
    do {
      x = 2.0 * uniform() - 1.0;
      y = 2.0 * uniform() - 1.0;
      square = detail::rounded(x * x) + detail::rounded(y * y);  // as NumPy does, unfused
    } while (square >= 1.0 || square == 0.0);
    const double factor = std::sqrt(-2.0 * std::log(square) / square);
    spare_ = factor * x;
    has_spare_ = true;
    return factor * y;
  }

  /// numpy.random.normal(mean, stddev).
  double normal(double mean, double stddev) { return mean + detail::rounded(stddev * normal()); }

 private:
  std::mt19937 engine_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace strata::inline STRATA_ABI
