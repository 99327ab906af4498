// Peak signal-to-noise ratio: 10 log10(peak^2 / MSE), in decibels.
//
//     double db = st::psnr(denoised, clean, {.rounding = st::Rounding::to_8bit});
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "strata/metrics/protocol.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The PSNR of two images, the squared error averaged over all pixels and compared channels; of two batches, the mean
/// over the images of their PSNRs, as papers report test sets. Equal images give infinity. Sums in double, in order.
/// Throws ShapeError and ValueError when the images or the protocol do not fit.
template <int C>
double psnr(const Image<C>& a, const Image<C>& b, const MetricOptions& options = {}) {
  detail::check_metric("psnr", a, b, options, 1);
  double sum = 0;
  for (std::int64_t n = 0; n < a.n(); ++n) {
    const detail::Planes x = detail::metric_planes(a, n, options), y = detail::metric_planes(b, n, options);
    double squares = 0;
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      const double difference = x.values[i] - y.values[i];
      squares += difference * difference;
    }
    const double mean = squares / double(x.values.size());
    sum += mean == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(options.peak * options.peak / mean);
  }
  return sum / double(a.n());
}

}}  // namespace strata::STRATA_ABI
