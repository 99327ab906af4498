// Bicubic resizing as MATLAB's imresize does it, the yardstick and the degradation of super-resolution's papers: Keys's
// kernel with a = -0.5, stretched by the factor when an image is made smaller (antialiasing), edges mirrored.
//
//     st::Image<3> small = st::resize_bicubic(photo, photo.h() / 2, photo.w() / 2);
//     st::Image<3> large = st::resize_bicubic(small, 2 * small.h(), 2 * small.w());
//
// R. G. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans. ASSP 29, 1981.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// Keys's cubic, a = -0.5.
inline double cubic(double x) {
  const double t = std::abs(x);
  if (t <= 1) return (1.5 * t - 2.5) * t * t + 1;
  if (t < 2) return ((-0.5 * t + 2.5) * t - 4) * t + 2;
  return 0;
}

/// For each of `to` results the `taps` places of the source (mirrored at the edges, the edge pixel doubled) and weights.
struct ResizeWeights {
  ResizeWeights(std::int64_t from, std::int64_t to) {
    const double scale = double(to) / double(from), shrink = std::min(scale, 1.0), width = 4 / shrink;
    taps = std::int64_t(std::ceil(width)) + 2;
    places.resize(std::size_t(to * taps));
    weights.resize(places.size());
    for (std::int64_t i = 0; i < to; ++i) {
      const double centre = (double(i) + 0.5) / scale - 0.5;
      const auto left = std::int64_t(std::floor(centre - width / 2));
      double sum = 0;
      for (std::int64_t k = 0; k < taps; ++k) {
        std::int64_t place = (left + k) % (2 * from);
        if (place < 0) place += 2 * from;
        const std::size_t at = std::size_t(i * taps + k);
        places[at] = place < from ? place : 2 * from - 1 - place;
        weights[at] = shrink * cubic(shrink * (centre - double(left + k)));
        sum += weights[at];
      }
      for (std::int64_t k = 0; k < taps; ++k) weights[std::size_t(i * taps + k)] /= sum;
    }
  }

  std::int64_t taps;
  std::vector<std::int64_t> places;
  std::vector<double> weights;
};

}  // namespace detail

/// Every image of the batch at h x w pixels. Rows first, then columns; sums in double, rounded once. Values may leave the
/// range of the input, as a cubic overshoots. Throws ShapeError for empty images and extents below 1.
template <int C>
Image<C> resize_bicubic(const Image<C>& image, std::int64_t h, std::int64_t w) {
  if (image.empty() || h < 1 || w < 1)
    throw ShapeError(concat("resize_bicubic: cannot make ", h, "x", w, " pixels of an image of ", image.h(), "x", image.w()));
  const detail::ResizeWeights down(image.h(), h), across(image.w(), w);
  Image<C> out(image.n(), h, w);
  parallel_for(image.n() * h, [&](std::int64_t row) {
    const std::int64_t n = row / h, y = row % h, values = image.w() * C;
    std::vector<double> line(std::size_t(values), 0.0);  // the rows of the source, weighted
    for (std::int64_t k = 0; k < down.taps; ++k) {
      const double weight = down.weights[std::size_t(y * down.taps + k)];
      if (weight == 0) continue;
      const float* from = &image(n, 0, down.places[std::size_t(y * down.taps + k)], 0);
      for (std::int64_t i = 0; i < values; ++i) line[std::size_t(i)] += weight * double(from[i]);
    }
    float* to = &out(n, 0, y, 0);
    for (std::int64_t x = 0; x < w; ++x, to += C) {
      double sum[C] = {};
      for (std::int64_t k = 0; k < across.taps; ++k) {
        const double weight = across.weights[std::size_t(x * across.taps + k)];
        if (weight == 0) continue;
        const double* from = line.data() + across.places[std::size_t(x * across.taps + k)] * C;
        for (int c = 0; c < C; ++c) sum[c] += weight * from[c];
      }
      for (int c = 0; c < C; ++c) to[c] = float(sum[c]);
    }
  });
  return out;
}

}  // namespace strata::inline STRATA_ABI
