// Structural similarity (Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Processing 13, 2004): an 11x11 Gaussian
// window of sigma 1.5, only where it lies wholly inside, K1 0.01, K2 0.03.
//
//     double similarity = st::ssim(denoised, clean);
//
// The same as scikit-image's structural_similarity(a, b, data_range=peak, gaussian_weights=True, sigma=1.5,
// use_sample_covariance=False, channel_axis=-1) on float64.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "strata/metrics/protocol.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

inline constexpr std::int64_t ssim_window = 11;

inline std::array<double, ssim_window> ssim_weights() {
  std::array<double, ssim_window> weights{};
  double sum = 0;
  for (std::int64_t i = 0; i < ssim_window; ++i) {
    const double distance = double(i - ssim_window / 2);
    weights[std::size_t(i)] = std::exp(-0.5 * distance * distance / (1.5 * 1.5));
    sum += weights[std::size_t(i)];
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// The mean SSIM of one plane.
inline double ssim_of_plane(const Planes& a, const Planes& b, std::int64_t plane, double peak) {
  enum { mean_a, mean_b, square_a, square_b, product, moments };
  const auto weights = ssim_weights();
  const std::int64_t w = a.w, out_h = a.h - ssim_window + 1, out_w = w - ssim_window + 1;
  const double c1 = 0.01 * peak * (0.01 * peak), c2 = 0.03 * peak * (0.03 * peak);
  // The moments of a row of windows: first summed over the columns of the image, then over the window's width.
  std::vector<double> columns(std::size_t(moments * w));
  double sum = 0;
  for (std::int64_t y = 0; y < out_h; ++y) {
    std::fill(columns.begin(), columns.end(), 0.0);
    for (std::int64_t i = 0; i < ssim_window; ++i) {
      const double weight = weights[std::size_t(i)];
      const double *row_a = a.row(plane, y + i), *row_b = b.row(plane, y + i);
      double* column = columns.data();
      for (std::int64_t x = 0; x < w; ++x) {
        column[mean_a * w + x] += weight * row_a[x];
        column[mean_b * w + x] += weight * row_b[x];
        column[square_a * w + x] += weight * row_a[x] * row_a[x];
        column[square_b * w + x] += weight * row_b[x] * row_b[x];
        column[product * w + x] += weight * row_a[x] * row_b[x];
      }
    }
    for (std::int64_t x = 0; x < out_w; ++x) {
      double m[moments] = {};
      for (std::int64_t k = 0; k < moments; ++k)
        for (std::int64_t i = 0; i < ssim_window; ++i)
          m[k] += weights[std::size_t(i)] * columns[std::size_t(k * w + x + i)];
      const double var_a = m[square_a] - m[mean_a] * m[mean_a], var_b = m[square_b] - m[mean_b] * m[mean_b];
      const double covariance = m[product] - m[mean_a] * m[mean_b];
      sum += (2 * m[mean_a] * m[mean_b] + c1) * (2 * covariance + c2) /
             ((m[mean_a] * m[mean_a] + m[mean_b] * m[mean_b] + c1) * (var_a + var_b + c2));
    }
  }
  return sum / double(out_h * out_w);
}

}  // namespace detail

/// The mean SSIM over pixels, compared channels and images. Sums in double, in order. Throws ShapeError for images
/// below 11x11 (without the border), ShapeError and ValueError when the images or the protocol do not fit.
template <int C>
double ssim(const Image<C>& a, const Image<C>& b, const MetricOptions& options = {}) {
  detail::check_metric("ssim", a, b, options, detail::ssim_window);
  double sum = 0;
  for (std::int64_t n = 0; n < a.n(); ++n) {
    const detail::Planes x = detail::metric_planes(a, n, options), y = detail::metric_planes(b, n, options);
    for (std::int64_t plane = 0; plane < x.count; ++plane)
      sum += detail::ssim_of_plane(x, y, plane, options.peak) / double(x.count);
  }
  return sum / double(a.n());
}

}}  // namespace strata::STRATA_ABI
