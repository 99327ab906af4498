// Losses of an image's changes from pixel to pixel: total variation, which wants few, and edges, which wants those of
// the target.
//
//     auto loss = mse(y, clean) + 1e-4 * st::TotalVariationLoss()(y);
//     auto sharp = l1(y, clean) + 0.05 * st::EdgeLoss({.filter = st::EdgeFilter::laplacian})(y, clean);
//
// Computed on the host; the sums are in double.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "strata/nn/loss_target.hpp"
#include "strata/nn/losses/host_loss.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The mean of |x[i + 1, j] - x[i, j]| and that of |x[i, j + 1] - x[i, j]|, added (Rudin, Osher and Fatemi, 1992, in
/// the anisotropic form of BasicSR's WeightedTVLoss). Of one row or column the other part alone.
class TotalVariationLoss {
 public:
  template <detail::variable_operand X>
  auto operator()(const X& image) const {
    return compute(as_var(image));
  }

 private:
  /// Calls f(place, place of the neighbour, factor) for the pairs that the rows [begin, end) of all images begin.
  template <int C, class F>
  static void pairs(const Shape& shape, std::int64_t row, F&& f) {
    const std::int64_t h = shape.h(), w = shape.w();
    const double down = h > 1 ? 1 / double(shape.n() * C * (h - 1) * w) : 0,
                 right = w > 1 ? 1 / double(shape.n() * C * h * (w - 1)) : 0;
    for (std::int64_t i = row * w * C; i < (row + 1) * w * C; ++i) {
      if (row % h + 1 < h) f(i, i + w * C, down);
      if (i + C < (row + 1) * w * C) f(i, i + C, right);
    }
  }

  template <int C, class T>
  static auto compute(const Var<C, T>& x) {
    detail::check_host_loss("TotalVariationLoss", x);
    const Shape shape = x.shape();
    const double value = detail::sum_of_terms(shape.n() * shape.h(), [&](std::int64_t row) {
      double sum = 0;
      pairs<C>(shape, row, [&](std::int64_t a, std::int64_t b, double factor) {
        sum += factor * std::abs(double(x.data()[b]) - double(x.data()[a]));
      });
      return sum;
    });
    return detail::host_loss(x, value, [x, shape](double g, const auto& dx) {
      parallel_ranges(shape.n(), 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t h = shape.h(), image = h * shape.w() * C;
        if (!dx.accumulate) std::fill(dx.data + begin * image, dx.data + end * image, T(0));
        for (std::int64_t row = begin * h; row < end * h; ++row)
          pairs<C>(shape, row, [&](std::int64_t a, std::int64_t b, double factor) {
            const T difference = x.data()[b] - x.data()[a];
            const T step = T(g * factor) * T((difference > 0) - (difference < 0));
            dx.data[b] += step;
            dx.data[a] -= step;
          });
      });
    });
  }
};

enum class EdgeFilter {
  sobel,     ///< two kernels of 3 x 3, for steps across and down: 1 2 1 times -1 0 1
  laplacian  ///< one: -4 in the middle and 1 at the four sides
};

struct EdgeOptions {
  EdgeFilter filter = EdgeFilter::sobel;
  double epsilon = 0;  ///< 0: the mean of |e|; above: of sqrt(e^2 + epsilon^2), as in MPRNet (Zamir et al., 2021)
};

/// The mean over pixels, channels and kernels of |e|, e the filter's answer to prediction - target; pixels at the
/// border are repeated beyond it.
class EdgeLoss {
 public:
  /// Throws ValueError for a negative epsilon.
  EdgeLoss() : EdgeLoss(EdgeOptions()) {}
  template <std::same_as<EdgeOptions> Options = EdgeOptions>
  explicit EdgeLoss(Options options) : options_(options) {
    if (!(options_.epsilon >= 0 && std::isfinite(options_.epsilon)))
      throw ValueError(concat("EdgeLoss: epsilon is ", options_.epsilon, ", wanted a number of at least 0"));
  }

  template <detail::variable_operand X, detail::variable_operand Y>
  auto operator()(const X& prediction, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::EdgeLoss: prediction and target must have the same number of channels");
    return compute(as_var(prediction - detail::loss_target(prediction, target)));
  }

 private:
  using Kernel = std::array<double, 9>;
  static constexpr std::array<Kernel, 2> sobel{{{-1, 0, 1, -2, 0, 2, -1, 0, 1}, {-1, -2, -1, 0, 0, 0, 1, 2, 1}}};
  static constexpr Kernel laplacian{0, 1, 0, 1, -4, 1, 0, 1, 0};

  /// Calls f(place, weight) for the nine pixels that a kernel reads at place i of channel c.
  template <class F>
  static void taps(const Kernel& kernel, std::int64_t h, std::int64_t w, int channels, std::int64_t y, std::int64_t x,
                   F&& f) {
    for (std::size_t t = 0; t < kernel.size(); ++t) {
      if (kernel[t] == 0) continue;
      const std::int64_t row = std::clamp(y + std::int64_t(t / 3) - 1, std::int64_t{0}, h - 1);
      const std::int64_t column = std::clamp(x + std::int64_t(t % 3) - 1, std::int64_t{0}, w - 1);
      f((row * w + column) * channels, kernel[t]);
    }
  }

  template <int C, class T>
  auto compute(const Var<C, T>& d) const {
    detail::check_host_loss("EdgeLoss", d);
    const std::int64_t h = d.h(), w = d.w(), n = d.n();
    const bool two = options_.filter == EdgeFilter::sobel;
    const double square = options_.epsilon * options_.epsilon, scale = 1 / double(d.size() * (two ? 2 : 1));
    // f(kernel, image, y, x, c, answer) for all of a row.
    const auto answers = [=](const T* numbers, std::int64_t row, auto&& f) {
      const T* const image = numbers + row / h * h * w * C;
      for (int k = 0; k < (two ? 2 : 1); ++k) {
        const Kernel& kernel = two ? sobel[std::size_t(k)] : laplacian;
        for (std::int64_t x = 0; x < w; ++x)
          for (int c = 0; c < C; ++c) {
            double answer = 0;
            taps(kernel, h, w, C, row % h, x,
                 [&](std::int64_t place, double weight) { answer += weight * double(image[place + c]); });
            f(kernel, x, c, answer);
          }
      }
    };
    const double value =
        scale * detail::sum_of_terms(n * h, [&](std::int64_t row) {
          double sum = 0;
          answers(d.data(), row, [&](const Kernel&, std::int64_t, int, double e) { sum += std::sqrt(e * e + square); });
          return sum;
        });
    return detail::host_loss(d, value, [d, answers, h, w, n, square, scale](double g, const auto& dx) {
      parallel_ranges(n, 1, [&](std::int64_t begin, std::int64_t end) {
        if (!dx.accumulate) std::fill(dx.data + begin * h * w * C, dx.data + end * h * w * C, T(0));
        for (std::int64_t row = begin * h; row < end * h; ++row) {
          T* const image = dx.data + row / h * h * w * C;
          answers(d.data(), row, [&](const Kernel& kernel, std::int64_t x, int c, double e) {
            const double size = std::sqrt(e * e + square), slope = size > 0 ? g * scale * e / size : 0;
            if (slope != 0)
              taps(kernel, h, w, C, row % h, x,
                   [&](std::int64_t place, double weight) { image[place + c] += T(weight * slope); });
          });
        }
      });
    });
  }

  EdgeOptions options_;
};

}}  // namespace strata::STRATA_ABI
