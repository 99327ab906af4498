// How noisy an image is: the standard deviation of additive white Gaussian noise, from the image alone.
//
//     float sigma = 255 * st::estimate_noise(image);
//
// G. Chen, F. Zhu and P. A. Heng, An efficient statistical method for image noise level estimation, ICCV 2015. Small
// patches of a picture vary in a few directions only; in all others there is nothing but noise. So of the eigenvalues
// of the patches' covariance the smallest are all about sigma^2: the largest are left out until the mean of the rest is
// their median.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// The eigenvalues, ascending, of a symmetric n x n matrix, by Jacobi's rotations. The matrix is used up.
inline std::vector<double> eigenvalues(std::vector<double>& a, std::int64_t n) {
  const auto at = [&](std::int64_t i, std::int64_t j) -> double& { return a[std::size_t(i * n + j)]; };
  double trace = 0;
  for (std::int64_t i = 0; i < n; ++i) trace += at(i, i);
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0;
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) off += at(p, q) * at(p, q);
    if (off <= 1e-24 * trace * trace) break;
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) {
        if (at(p, q) == 0) continue;
        const double theta = (at(q, q) - at(p, p)) / (2 * at(p, q));
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::int64_t k = 0; k < n; ++k) {
          const double x = at(k, p), y = at(k, q);
          at(k, p) = c * x - s * y;
          at(k, q) = s * x + c * y;
        }
        for (std::int64_t k = 0; k < n; ++k) {
          const double x = at(p, k), y = at(q, k);
          at(p, k) = c * x - s * y;
          at(q, k) = s * x + c * y;
        }
      }
  }
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(at(i, i));
  std::sort(values.begin(), values.end());
  return values;
}

/// sigma^2 of one plane. value(y, x) is a pixel.
template <class Value>
double noise_variance(std::int64_t h, std::int64_t w, Value&& value) {
  constexpr std::int64_t side = 8, n = side * side, most = 20000;
  const std::int64_t rows = h - side + 1, columns = w - side + 1;
  // A regular choice of patches, some 20000 at most.
  const auto step = std::max<std::int64_t>(1, std::int64_t(std::sqrt(double(rows) * double(columns) / double(most))));
  std::vector<double> covariance(std::size_t(n * n), 0.0), sum(std::size_t(n), 0.0);
  std::int64_t count = 0;
  std::array<double, std::size_t(n)> patch{};
  for (std::int64_t y = 0; y < rows; y += step)
    for (std::int64_t x = 0; x < columns; x += step, ++count) {
      for (std::int64_t i = 0; i < n; ++i) patch[std::size_t(i)] = double(value(y + i / side, x + i % side)) - 0.5;
      for (std::int64_t i = 0; i < n; ++i) {
        sum[std::size_t(i)] += patch[std::size_t(i)];
        for (std::int64_t j = 0; j <= i; ++j)
          covariance[std::size_t(i * n + j)] += patch[std::size_t(i)] * patch[std::size_t(j)];
      }
    }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double& entry = covariance[std::size_t(i * n + j)];
      entry = entry / double(count) - sum[std::size_t(i)] * sum[std::size_t(j)] / double(count) / double(count);
      covariance[std::size_t(j * n + i)] = entry;
    }
  const std::vector<double> values = eigenvalues(covariance, n);
  for (std::int64_t kept = n; kept > 0; --kept) {
    double mean = 0;
    for (std::int64_t i = 0; i < kept; ++i) mean += values[std::size_t(i)] / double(kept);
    const auto above = std::count_if(values.begin(), values.begin() + kept, [&](double v) { return v > mean; });
    const auto below = std::count_if(values.begin(), values.begin() + kept, [&](double v) { return v < mean; });
    if (above == below || kept == 1) return std::max(mean, 0.0);
  }
  return 0;
}

}  // namespace detail

/// The standard deviation of the noise in the image's own units (multiply by 255 for the usual figure), the root of the
/// mean over channels of its square. Throws ShapeError for an image below 16 x 16, ValueError for a batch.
template <int C>
float estimate_noise(const Image<C>& image) {
  image.tensor().require_host("estimate_noise");
  if (image.n() != 1) throw ValueError(concat("estimate_noise: got a batch of ", image.n(), " images, wanted one"));
  if (image.h() < 16 || image.w() < 16)
    throw ShapeError(
        concat("estimate_noise: an image of ", image.h(), " x ", image.w(), " pixels is too small: wanted 16 x 16"));
  double variance = 0;
  for (int c = 0; c < C; ++c)
    variance += detail::noise_variance(image.h(), image.w(),
                                       [&](std::int64_t y, std::int64_t x) { return image(0, c, y, x); }) /
                C;
  return float(std::sqrt(variance));
}

}}  // namespace strata::STRATA_ABI
