// How two images are compared. Figures are comparable only when all of this is the same, so a metric takes it in the
// call and prints it.
//
//     const st::MetricOptions protocol{.rounding = st::Rounding::to_8bit, .border = 4, .channels =
//     st::ColorSpace::bt601_y}; std::cout << "PSNR " << st::psnr(a, b, protocol) << " dB (" << protocol.str() << ")\n";
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class Rounding {
  none,    ///< values as they are
  to_8bit  ///< clamped to [0, peak] and rounded to the 256 levels of a file, halves to even (numpy.round)
};

enum class ColorSpace {
  rgb,     ///< the channels as they are
  bt601_y  ///< luma of RGB as MATLAB's rgb2ycbcr and super-resolution's papers: (65.481 R + 128.553 G + 24.966 B + 16)
           ///< / 255
};

struct MetricOptions {
  double peak = 1;                     ///< the value of white: 1 for images in [0, 1]
  Rounding rounding = Rounding::none;  ///< of both images, before the change of colour space
  std::int64_t border = 0;             ///< rows and columns left out on each side
  ColorSpace channels = ColorSpace::rgb;

  /// "peak 1, not rounded, border 0, all channels".
  std::string str() const {
    return concat("peak ", peak, rounding == Rounding::none ? ", not rounded" : ", rounded to 8 bits", ", border ",
                  border, channels == ColorSpace::rgb ? ", all channels" : ", BT.601 Y");
  }
};

namespace detail {

/// Throws unless a and b can be compared under the protocol and at least `least` pixels are left in each direction.
template <int C>
void check_metric(const char* metric, const Image<C>& a, const Image<C>& b, const MetricOptions& options,
                  std::int64_t least) {
  a.tensor().require_host(metric);
  b.tensor().require_host(metric);
  if (a.shape() != b.shape())
    throw ShapeError(concat(metric, ": the images have different shapes, ", a.shape().str(), " and ", b.shape().str()));
  if (!(options.peak > 0)) throw ValueError(concat(metric, ": got .peak = ", options.peak, ", wanted more than 0"));
  if (options.border < 0) throw ValueError(concat(metric, ": got .border = ", options.border, ", wanted 0 or more"));
  if (C != 3 && options.channels == ColorSpace::bt601_y)
    throw ValueError(concat(metric, ": BT.601 Y is of RGB images, these have ", C, " channels; use ColorSpace::rgb"));
  if (a.n() < 1 || a.h() - 2 * options.border < least || a.w() - 2 * options.border < least)
    throw ShapeError(concat(metric, ": ", a.shape().str(), " without a border of ", options.border,
                            " leaves less than ", least, "x", least, " pixels"));
}

/// The planes that are compared of image n: h rows of w values, plane after plane.
struct Planes {
  std::int64_t count = 0, h = 0, w = 0;
  std::vector<double> values;
  const double* row(std::int64_t plane, std::int64_t y) const { return values.data() + (plane * h + y) * w; }
};

template <int C>
Planes metric_planes(const Image<C>& image, std::int64_t n, const MetricOptions& options) {
  Planes planes;
  const bool luma = C == 3 && options.channels == ColorSpace::bt601_y;
  planes.count = luma ? 1 : C;
  planes.h = image.h() - 2 * options.border;
  planes.w = image.w() - 2 * options.border;
  planes.values.resize(std::size_t(planes.count * planes.h * planes.w));
  const std::int64_t plane_size = planes.h * planes.w;
  double* out = planes.values.data();
  for (std::int64_t y = 0; y < planes.h; ++y) {
    const float* pixel = &image(n, 0, y + options.border, options.border);
    for (std::int64_t x = 0; x < planes.w; ++x, ++out, pixel += C) {
      double values[C];
      for (int c = 0; c < C; ++c) {
        values[c] = double(pixel[c]);
        if (options.rounding == Rounding::to_8bit)
          values[c] = std::nearbyint(std::clamp(values[c] / options.peak, 0.0, 1.0) * 255) / 255 * options.peak;
      }
      if constexpr (C == 3) {
        if (luma) {
          *out = (65.481 * values[0] + 128.553 * values[1] + 24.966 * values[2] + 16 * options.peak) / 255;
          continue;
        }
      }
      for (int c = 0; c < C; ++c) out[c * plane_size] = values[c];
    }
  }
  return planes;
}

}  // namespace detail
}}  // namespace strata::STRATA_ABI
