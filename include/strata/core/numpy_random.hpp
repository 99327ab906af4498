// NumPy's legacy generator, numpy.random.RandomState(seed), to the last bit: published figures of denoisers often add
// noise made after numpy.random.seed(0), and only the same numbers give the same decibels.
//
//     st::NumpyRandom random(0);
//     double x = random.normal(0, 25.0 / 255);        // numpy.random.seed(0); numpy.random.normal(0, 25 / 255)
//
// MT19937 (Matsumoto and Nishimura 1998) seeded by its own init_genrand; doubles of 53 bits; Gaussians by Marsaglia's
// polar method, the second of each pair kept for the next call.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "strata/core/config.hpp"
#include "strata/core/rounded.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// std::mt19937, whose header costs each program more than all of this one.
class MersenneTwister {
 public:
  explicit MersenneTwister(std::uint32_t seed) {
    state_[0] = seed;
    for (std::size_t i = 1; i < size; ++i)
      state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + std::uint32_t(i);
  }

  std::uint32_t operator()() {
    if (next_ == size) {
      for (std::size_t i = 0; i < size; ++i) {
        const std::uint32_t word = (state_[i] & 0x80000000u) | (state_[(i + 1) % size] & 0x7fffffffu);
        state_[i] = state_[(i + 397) % size] ^ (word >> 1) ^ ((word & 1u) != 0 ? 0x9908b0dfu : 0u);
      }
      next_ = 0;
    }
    std::uint32_t word = state_[next_++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
  }

 private:
  static constexpr std::size_t size = 624;
  std::array<std::uint32_t, size> state_;
  std::size_t next_ = size;
};

}  // namespace detail

class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : engine_(seed) {}

  /// numpy.random.random_sample(): uniform in [0, 1), 53 bits.
  double uniform() {
    const auto high = double(engine_() >> 5);
    const auto low = double(engine_() >> 6);
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
  detail::MersenneTwister engine_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace strata::inline STRATA_ABI
