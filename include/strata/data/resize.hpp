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
#include <span>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/rounded.hpp"
#include "strata/core/simd.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

typedef double Pair __attribute__((vector_size(16)));

/// Keys's cubic, a = -0.5.
inline double cubic(double x) {
  const double t = std::abs(x);
  if (t <= 1) return rounded((rounded(1.5 * t) - 2.5) * t * t) + 1;
  if (t < 2) return rounded((rounded((rounded(-0.5 * t) + 2.5) * t) - 4) * t) + 2;
  return 0;
}

/// For each of `to` results the places of the source (mirrored at the edges, the edge pixel doubled) that count, and by
/// how much.
struct ResizeWeights {
  struct Tap {
    std::int64_t place;
    double weight;
  };

  ResizeWeights(std::int64_t from, std::int64_t to) {
    const double scale = double(to) / double(from), shrink = std::min(scale, 1.0), width = 4 / shrink;
    const std::int64_t most = std::int64_t(std::ceil(width)) + 2;
    taps.reserve(std::size_t(to * most));
    begins.reserve(std::size_t(to + 1));
    for (std::int64_t i = 0; i < to; ++i) {
      const double centre = (double(i) + 0.5) / scale - 0.5;
      const auto left = std::int64_t(std::floor(centre - width / 2));
      double sum = 0;
      begins.push_back(taps.size());
      for (std::int64_t k = 0; k < most; ++k) {
        const double weight = rounded(shrink * cubic(shrink * (centre - double(left + k))));
        if (weight == 0) continue;
        std::int64_t place = (left + k) % (2 * from);
        if (place < 0) place += 2 * from;
        taps.push_back({place < from ? place : 2 * from - 1 - place, weight});
        sum += weight;
      }
      for (std::size_t k = begins.back(); k < taps.size(); ++k) taps[k].weight /= sum;
    }
    begins.push_back(taps.size());
  }

  /// The taps of result i.
  std::span<const Tap> of(std::int64_t i) const {
    return std::span(taps).subspan(begins[std::size_t(i)], begins[std::size_t(i + 1)] - begins[std::size_t(i)]);
  }

  std::vector<Tap> taps;
  std::vector<std::size_t> begins;
};

}  // namespace detail

/// Every image of the batch at h x w pixels. Rows first, then columns; sums in double, rounded once. Values may leave
/// the range of the input, as a cubic overshoots. Throws ShapeError for empty images and extents below 1.
template <int C>
Image<C> resize_bicubic(const Image<C>& image, std::int64_t h, std::int64_t w) {
  if (image.empty() || h < 1 || w < 1)
    throw ShapeError(
        concat("resize_bicubic: cannot make ", h, "x", w, " pixels of an image of ", image.h(), "x", image.w()));
  const detail::ResizeWeights down(image.h(), h), across(image.w(), w);
  Image<C> out(image.n(), h, w);
  parallel_for(image.n() * h, [&](std::int64_t row) {
    const std::int64_t n = row / h, y = row % h, values = image.w() * C;
    std::vector<double> line(std::size_t(values + 1), 0.0);  // the rows of the source, weighted
    for (const auto& [place, weight] : down.of(y)) {
      const float* from = &image(n, 0, place, 0);
      double* sum = line.data();
      simd::over_vectors<double>(values, [&, scale = weight]<class V>(std::int64_t i) {
        simd::store<V>(sum + i, simd::load<V>(sum + i) + detail::rounded(scale * simd::widened<V>(from + i)));
      });
    }
    float* to = &out(n, 0, y, 0);
    for (std::int64_t x = 0; x < w; ++x, to += C) {
      detail::Pair sum[(C + 1) / 2] = {};  // line has one number more than is needed
      for (const auto& [place, weight] : across.of(x)) {
        const double* from = line.data() + place * C;
        for (int c = 0; c < C; c += 2) sum[c / 2] += detail::rounded(weight * simd::load<detail::Pair>(from + c));
      }
      for (int c = 0; c < C; ++c) to[c] = float(sum[c / 2][c % 2]);
    }
  });
  return out;
}

}}  // namespace strata::STRATA_ABI
