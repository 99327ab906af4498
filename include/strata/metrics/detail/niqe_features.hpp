// The 36 features of a block of 96 x 96 pixels that NIQE compares: 18 of the picture, 18 of the picture at half size.
//
// A. Mittal, R. Soundararajan, A. C. Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing
// Letters 20, 2013: equation 1 (normalised luminance), 4 to 6 (the distribution fitted), 8 (its mean). N. Lasmar, Y.
// Stitou, Y. Berthoumieu, "Multiscale skewness and kurtosis...", ICIP 2009, has the fit by moments. Window, constants
// and the grid of shapes are those of the authors' program, which others follow.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/rounded.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline constexpr std::int64_t niqe_block = 96;  ///< rows and columns of a block; half as many at half size
inline constexpr int niqe_features = 36;

/// Rows of grey values, 0 black and 255 white.
struct NiqePlane {
  std::int64_t h = 0, w = 0;
  std::vector<double> values = {};
  const double* row(std::int64_t y) const { return values.data() + y * w; }
  double* row(std::int64_t y) { return values.data() + y * w; }
};

/// The Gaussian window of 7 x 7 with standard deviation 7 / 6, as weights of one direction.
inline std::array<double, 7> niqe_window() {
  std::array<double, 7> weights{};
  double sum = 0;
  for (int i = 0; i < 7; ++i) {
    const double distance = double(i - 3) * 6 / 7;
    weights[std::size_t(i)] = std::exp(-distance * distance / 2);
    sum += weights[std::size_t(i)];
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// Each value less the mean around it, over the standard deviation around it plus 1; `deviation` gets the latter.
/// Edges are repeated. Mean and variance are taken of differences from the pixel itself, so that what is flat gives
/// exact zeros and not what rounding leaves.
inline NiqePlane niqe_normalised(const NiqePlane& image, NiqePlane& deviation) {
  NiqePlane out{image.h, image.w, std::vector<double>(image.values.size())};
  deviation = out;
  const std::array<double, 7> window = niqe_window();
  parallel_for(image.h, [&](std::int64_t y) {
    for (std::int64_t x = 0; x < image.w; ++x) {
      const double centre = image.row(y)[x];
      double mean = 0, square = 0;
      for (std::int64_t dy = -3; dy <= 3; ++dy) {
        const double* const row = image.row(std::clamp<std::int64_t>(y + dy, 0, image.h - 1));
        double row_mean = 0, row_square = 0;
        for (std::int64_t dx = -3; dx <= 3; ++dx) {
          const double difference = row[std::clamp<std::int64_t>(x + dx, 0, image.w - 1)] - centre;
          const double weighted = rounded(window[std::size_t(dx + 3)] * difference);
          row_mean += weighted;
          row_square += rounded(weighted * difference);
        }
        mean += rounded(window[std::size_t(dy + 3)] * row_mean);
        square += rounded(window[std::size_t(dy + 3)] * row_square);
      }
      const double spread = std::sqrt(std::abs(square - rounded(mean * mean)));
      deviation.row(y)[x] = spread;
      out.row(y)[x] = -mean / (spread + 1);
    }
  });
  return out;
}

/// Half as many rows and columns, both even, as MATLAB's imresize(image, 0.5): the cubic with a = -0.5 at twice its
/// width, in 1 / 256; edges mirrored.
inline NiqePlane niqe_halved(const NiqePlane& image) {
  constexpr std::array<double, 8> weights{-3, -9, 29, 111, 111, 29, -9, -3};
  const auto mirrored = [](std::int64_t i, std::int64_t size) {
    return i < 0 ? -1 - i : i < size ? i : 2 * size - 1 - i;
  };
  NiqePlane out{image.h / 2, image.w / 2, std::vector<double>(image.values.size() / 4)};
  parallel_for(out.h, [&](std::int64_t y) {
    std::vector<double> line(std::size_t(image.w), 0.0);
    for (std::int64_t k = 0; k < 8; ++k) {
      const double* const row = image.row(mirrored(2 * y - 3 + k, image.h));
      for (std::int64_t x = 0; x < image.w; ++x)
        line[std::size_t(x)] += rounded(weights[std::size_t(k)] / 256 * row[x]);
    }
    for (std::int64_t x = 0; x < out.w; ++x) {
      double sum = 0;
      for (std::int64_t k = 0; k < 8; ++k)
        sum += rounded(weights[std::size_t(k)] / 256 * line[std::size_t(mirrored(2 * x - 3 + k, image.w))]);
      out.row(y)[x] = sum;
    }
  });
  return out;
}

/// What fits an asymmetric generalised Gaussian distribution to numbers by their moments.
class AsymmetricFit {
 public:
  struct Result {
    double shape, left, right;  ///< alpha, beta of what is below 0, beta of what is above
  };

  AsymmetricFit() {
    for (std::size_t i = 0; i < count; ++i) {
      const double shape = shape_of(i), two = std::tgamma(2 / shape);
      ratios_[i] = two * two / (std::tgamma(1 / shape) * std::tgamma(3 / shape));
    }
  }

  /// Of `size` numbers, number(i) each. NaN beside the smallest shape where there are none on a side of 0, as in the
  /// authors' program.
  template <class Number>
  Result operator()(std::int64_t size, Number&& number) const {
    double below = 0, above = 0, absolute = 0;
    std::int64_t left = 0, right = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      const double value = number(i), square = rounded(value * value);
      if (value < 0) below += square, ++left;
      if (value > 0) above += square, ++right;
      absolute += std::abs(value);
    }
    constexpr double none = std::numeric_limits<double>::quiet_NaN();
    const double left_std = left > 0 ? std::sqrt(below / double(left)) : none;
    const double right_std = right > 0 ? std::sqrt(above / double(right)) : none;
    const double g = left_std / right_std, mean = absolute / double(size), squares = (below + above) / double(size);
    const double ratio = mean * mean / squares * (g * g * g + 1) * (g + 1) / ((g * g + 1) * (g * g + 1));
    const double shape = shape_of(nearest(ratio));
    const double scale = std::sqrt(std::tgamma(1 / shape) / std::tgamma(3 / shape));
    return {shape, left_std * scale, right_std * scale};
  }

 private:
  static constexpr std::size_t count = 9801;  // 0.2 to 10 in steps of 0.001
  static double shape_of(std::size_t i) { return 0.2 + 0.001 * double(i); }

  /// The place of the ratio nearest to this; they rise. Of two that are as near the first.
  std::size_t nearest(double ratio) const {
    const auto above = std::lower_bound(ratios_.begin(), ratios_.end(), ratio);
    const auto place = std::size_t(above - ratios_.begin());
    if (place == 0) return 0;
    if (place == count) return count - 1;
    return ratio - ratios_[place - 1] <= ratios_[place] - ratio ? place - 1 : place;
  }

  std::vector<double> ratios_ = std::vector<double>(count);
};

/// The 18 features of size x size numbers at row y and column x.
inline void niqe_block_features(const NiqePlane& normalised, std::int64_t y, std::int64_t x, std::int64_t size,
                                const AsymmetricFit& fit, double* out) {
  const auto at = [&](std::int64_t row, std::int64_t column) { return normalised.row(y + row)[x + column]; };
  const auto own = fit(size * size, [&](std::int64_t i) { return at(i / size, i % size); });
  *out++ = own.shape;
  *out++ = (own.left + own.right) / 2;
  // Products with the neighbour to the left, above, and on both diagonals; over the block's edge they go around.
  constexpr std::int64_t shifts[4][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};
  for (const auto& [down, across] : shifts) {
    const auto pairs = fit(size * size, [&, down = down, across = across](std::int64_t i) {
      const std::int64_t row = i / size, column = i % size;
      return at(row, column) * at((row - down + size) % size, (column - across + size) % size);
    });
    *out++ = pairs.shape;
    *out++ = (pairs.right - pairs.left) * (std::tgamma(2 / pairs.shape) / std::tgamma(1 / pairs.shape));
    *out++ = pairs.left;
    *out++ = pairs.right;
  }
}

struct NiqeBlocks {
  std::int64_t count = 0;
  std::vector<double> features = {};   ///< count rows of niqe_features numbers; some may be NaN
  std::vector<double> sharpness = {};  ///< of each block: the mean of the deviations around its pixels
};

/// Of all whole blocks of an image of at least one.
inline NiqeBlocks niqe_blocks(NiqePlane image, const AsymmetricFit& fit) {
  const std::int64_t down = image.h / niqe_block, across = image.w / niqe_block;
  NiqePlane whole{down * niqe_block, across * niqe_block, {}};
  whole.values.reserve(std::size_t(whole.h * whole.w));
  for (std::int64_t y = 0; y < whole.h; ++y)
    whole.values.insert(whole.values.end(), image.row(y), image.row(y) + whole.w);
  NiqeBlocks out{down * across, std::vector<double>(std::size_t(down * across * niqe_features)),
                 std::vector<double>(std::size_t(down * across))};
  for (std::int64_t scale = 1; scale <= 2; ++scale) {
    NiqePlane deviation;
    const NiqePlane normalised = niqe_normalised(whole, deviation);
    const std::int64_t size = niqe_block / scale;
    parallel_for(out.count, [&](std::int64_t block) {
      const std::int64_t y = block / across * size, x = block % across * size;
      niqe_block_features(normalised, y, x, size, fit,
                          out.features.data() + block * niqe_features + (scale - 1) * niqe_features / 2);
      if (scale != 1) return;
      double sum = 0;
      for (std::int64_t row = 0; row < size; ++row)
        for (std::int64_t column = 0; column < size; ++column) sum += deviation.row(y + row)[x + column];
      out.sharpness[std::size_t(block)] = sum / double(size * size);
    });
    if (scale == 1) whole = niqe_halved(whole);
  }
  return out;
}

}}}  // namespace strata::STRATA_ABI::detail
