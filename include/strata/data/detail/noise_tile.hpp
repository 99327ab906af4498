// Noise to texture surfaces with.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// A square of noise that repeats, of mean about 0 and deviation about 1: octaves of smoothed random grids, the coarser
/// ones the stronger ("rough" 0: one over the frequency, 1: white).
class NoiseTile {
 public:
  static constexpr int side = 128;

  NoiseTile(float rough, Rng& rng) : values_(side * side, 0.0f) {
    float squares = 0;
    for (int cell = side / 2; cell >= 1; cell /= 2) {
      const float amplitude = std::pow(float(cell), 1 - rough);
      const int grid = side / cell;
      std::vector<float> knots(std::size_t(grid * grid));
      for (float& knot : knots) knot = rounded(amplitude * rng.uniform(-1, 1));
      for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) {
          const int gy = y / cell, gx = x / cell;
          const float fy = float(y % cell) / float(cell), fx = float(x % cell) / float(cell);
          const auto knot = [&](int i, int j) { return knots[std::size_t((i % grid) * grid + j % grid)]; };
          const auto row = [&](int i) { return rounded((1 - fx) * knot(i, gx)) + rounded(fx * knot(i, gx + 1)); };
          values_[std::size_t(y * side + x)] += rounded((1 - fy) * row(gy)) + rounded(fy * row(gy + 1));
        }
    }
    for (const float value : values_) squares += rounded(value * value);
    const float scale = 1 / std::sqrt(squares / float(side * side) + 1e-12f);
    for (float& value : values_) value *= scale;
  }

  /// The value at a place, of any sign, less than 2^20 away from the origin.
  float operator()(float y, float x) const {
    const int row = int(y + 0x1p20f) & (side - 1), column = int(x + 0x1p20f) & (side - 1);
    return values_[std::size_t(row * side + column)];
  }

 private:
  std::vector<float> values_;
};

}}}  // namespace strata::STRATA_ABI::detail
