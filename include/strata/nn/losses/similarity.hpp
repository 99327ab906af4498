// Structural similarity as a loss: 1 - SSIM, and over several scales 1 - MS-SSIM.
//
//     const st::SSIMLoss ssim({.peak = 1});                 // images in [0, 1]
//     auto loss = 0.84 * st::MSSSIMLoss()(y, clean) + 0.16 * l1(y, clean);      // Zhao et al., 2017
//
// SSIM: Wang, Bovik, Sheikh and Simoncelli, 2004; MS-SSIM: Wang, Simoncelli and Bovik, 2003. A Gaussian window, only
// where it lies wholly inside, each channel by itself; values as pytorch_msssim's (which averages pixels of odd images
// with a border of zeros when it halves them). Computed on the host, in double. Gradients flow into both images.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "strata/nn/losses/host_loss.hpp"

namespace strata { inline namespace STRATA_ABI {

struct SSIMLossOptions {
  double peak = 1;  ///< the images' range: 255 for images in [0, 255]
  int window = 11;  ///< odd, pixels
  double sigma = 1.5;
  double k1 = 0.01, k2 = 0.03;
};

namespace detail {

/// One channel of one image.
struct SimilarityPlane {
  std::int64_t h = 0, w = 0;
  std::vector<double> numbers;

  SimilarityPlane(std::int64_t height, std::int64_t width)
      : h(height), w(width), numbers(std::size_t(height * width)) {}
  double* row(std::int64_t y) { return numbers.data() + y * w; }
  const double* row(std::int64_t y) const { return numbers.data() + y * w; }
  std::size_t size() const { return numbers.size(); }
  double& operator[](std::size_t i) { return numbers[i]; }
  double operator[](std::size_t i) const { return numbers[i]; }
};

class Similarity {
 public:
  Similarity(const char* who, const SSIMLossOptions& options)
      : window_(std::size_t(options.window < 1 ? 1 : options.window)) {
    if (options.window < 1 || options.window % 2 == 0)
      throw ValueError(concat(who, ": window is ", options.window, ", wanted an odd number of pixels"));
    for (const auto& [value, name] :
         {std::pair{options.peak, "peak"}, {options.sigma, "sigma"}, {options.k1, "k1"}, {options.k2, "k2"}})
      if (!(value > 0 && std::isfinite(value)))
        throw ValueError(concat(who, ": ", name, " is ", value, ", wanted a number above 0"));
    double sum = 0;
    for (std::size_t i = 0; i < window_.size(); ++i) {
      const double d = double(i) - double(window_.size() / 2);
      sum += window_[i] = std::exp(-d * d / (2 * options.sigma * options.sigma));
    }
    for (double& weight : window_) weight /= sum;
    c1_ = options.k1 * options.peak * options.k1 * options.peak;
    c2_ = options.k2 * options.peak * options.k2 * options.peak;
  }
  std::int64_t window() const { return std::int64_t(window_.size()); }

  /// Means over the windows: of SSIM, and of its part for contrast and structure.
  struct Means {
    double ssim = 0, cs = 0;
  };
  Means means(const SimilarityPlane& a, const SimilarityPlane& b) const {
    const Moments m(*this, a, b);
    Means means;
    for (std::size_t i = 0; i < m.a.size(); ++i) {
      const Terms t = terms(m, i);
      means.ssim += t.l() * t.cs();
      means.cs += t.cs();
    }
    return {means.ssim / double(m.a.size()), means.cs / double(m.a.size())};
  }

  /// da += the gradient for a of ssim * Means::ssim + cs * Means::cs.
  void add_gradient(const SimilarityPlane& a, const SimilarityPlane& b, double ssim, double cs,
                    SimilarityPlane& da) const {
    Moments m(*this, a, b);
    const double scale = 1 / double(m.a.size());
    for (std::size_t i = 0; i < m.a.size(); ++i) {
      const Terms t = terms(m, i);
      const double mu_a = m.a[i], mu_b = m.b[i], for_cs = scale * (ssim * t.l() + cs), for_l = scale * ssim * t.cs();
      const double of_square = -t.a2 / (t.b2 * t.b2), of_product = 2 / t.b2;  // of cs, for the moments G(a^2) and G(ab)
      m.a[i] = for_l * (2 * mu_b / t.b1 - t.a1 * 2 * mu_a / (t.b1 * t.b1)) +
               for_cs * (-mu_b * of_product - 2 * mu_a * of_square);
      m.aa[i] = for_cs * of_square;
      m.ab[i] = for_cs * of_product;
    }
    const SimilarityPlane of_mean = spread(m.a, a), of_square = spread(m.aa, a), of_product = spread(m.ab, a);
    for (std::size_t i = 0; i < a.size(); ++i) da[i] += of_mean[i] + 2 * a[i] * of_square[i] + b[i] * of_product[i];
  }

 private:
  struct Moments {
    SimilarityPlane a, b, aa, bb, ab;
    Moments(const Similarity& of, const SimilarityPlane& x, const SimilarityPlane& y)
        : a(of.blur(x, x, false)),
          b(of.blur(y, y, false)),
          aa(of.blur(x, x, true)),
          bb(of.blur(y, y, true)),
          ab(of.blur(x, y, true)) {}
  };
  struct Terms {
    double a1, b1, a2, b2;
    double l() const { return a1 / b1; }
    double cs() const { return a2 / b2; }
  };
  Terms terms(const Moments& m, std::size_t i) const {
    const double mu_a = m.a[i], mu_b = m.b[i];
    return {2 * mu_a * mu_b + c1_, mu_a * mu_a + mu_b * mu_b + c1_, 2 * (m.ab[i] - mu_a * mu_b) + c2_,
            (m.aa[i] - mu_a * mu_a) + (m.bb[i] - mu_b * mu_b) + c2_};
  }

  /// The window moved over x, or over x * y.
  SimilarityPlane blur(const SimilarityPlane& x, const SimilarityPlane& y, bool product) const {
    const std::int64_t k = window(), h = x.h - k + 1, w = x.w - k + 1;
    SimilarityPlane rows(h, x.w), out(h, w);
    for (std::int64_t i = 0; i < h; ++i)
      for (std::int64_t t = 0; t < k; ++t) {
        const double weight = window_[std::size_t(t)], *from = x.row(i + t), *by = y.row(i + t);
        double* to = rows.row(i);
        for (std::int64_t j = 0; j < x.w; ++j) to[j] += weight * (product ? from[j] * by[j] : from[j]);
      }
    for (std::int64_t i = 0; i < h; ++i)
      for (std::int64_t t = 0; t < k; ++t) {
        const double weight = window_[std::size_t(t)], *from = rows.row(i) + t;
        double* to = out.row(i);
        for (std::int64_t j = 0; j < w; ++j) to[j] += weight * from[j];
      }
    return out;
  }
  /// Its adjoint.
  SimilarityPlane spread(const SimilarityPlane& g, const SimilarityPlane& like) const {
    const std::int64_t k = window();
    SimilarityPlane rows(g.h, like.w), out(like.h, like.w);
    for (std::int64_t i = 0; i < g.h; ++i)
      for (std::int64_t t = 0; t < k; ++t) {
        const double weight = window_[std::size_t(t)], *from = g.row(i);
        double* to = rows.row(i) + t;
        for (std::int64_t j = 0; j < g.w; ++j) to[j] += weight * from[j];
      }
    for (std::int64_t i = 0; i < g.h; ++i)
      for (std::int64_t t = 0; t < k; ++t) {
        const double weight = window_[std::size_t(t)], *from = rows.row(i);
        double* to = out.row(i + t);
        for (std::int64_t j = 0; j < like.w; ++j) to[j] += weight * from[j];
      }
    return out;
  }

  std::vector<double> window_;
  double c1_ = 0, c2_ = 0;
};

template <int C, class T>
SimilarityPlane plane_of(const Image<C, T>& image, std::int64_t plane) {
  SimilarityPlane out(image.h(), image.w());
  const T* from = image.data() + plane / C * out.h * out.w * C + plane % C;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = double(from[i * std::size_t(C)]);
  return out;
}

/// Halves a plane: means of 2 x 2 pixels, an odd extent with a border of zeros on both sides.
inline SimilarityPlane halved(const SimilarityPlane& x) {
  const std::int64_t top = x.h % 2, left = x.w % 2;
  SimilarityPlane y(x.h / 2 + top, x.w / 2 + left);
  for (std::int64_t i = 0; i < x.h; ++i)
    for (std::int64_t j = 0; j < x.w; ++j) y.row((i + top) / 2)[(j + left) / 2] += 0.25 * x.row(i)[j];
  return y;
}
inline void add_halved_gradient(const SimilarityPlane& dy, SimilarityPlane& dx) {
  const std::int64_t top = dx.h % 2, left = dx.w % 2;
  for (std::int64_t i = 0; i < dx.h; ++i)
    for (std::int64_t j = 0; j < dx.w; ++j) dx.row(i)[j] += 0.25 * dy.row((i + top) / 2)[(j + left) / 2];
}

/// The loss 1 - mean of value(a, b) over all planes, with the gradient that add(a, b, factor, da) adds.
template <int C, class T, class Value, class Add>
auto similarity_loss(const char* who, const Var<C, T>& x, const Var<C, T>& y, Value value, Add add) {
  check_host_loss(who, x);
  check_same_device(x.device(), y.device(), [who] { return who; });
  check_same_shape(who, x.shape(), y.shape());
  const std::int64_t planes = x.n() * C;
  const Image<C, T> a = x.value(), b = y.value();
  const double mean =
      sum_of_terms(planes, [&](std::int64_t p) { return value(plane_of(a, p), plane_of(b, p)); }) / double(planes);
  Scalar<T> loss(T(1 - mean), common_tape(x, y));
  if (loss.tape() != nullptr)
    loss.tape()->record(
        loss.id(),
        [a, b, x_id = x.id(), y_id = y.id(), id = loss.id(), planes, add](Tape& tape) {
          const double factor = -double(*tape.gradient<T>(id)) / double(planes);
          const auto go = [&](const Image<C, T>& of, const Image<C, T>& other, std::int64_t of_id) {
            const auto target = tape.target<T>(of_id);
            if (!target) return;
            parallel_ranges(planes, 1, [&](std::int64_t begin, std::int64_t end) {
              for (std::int64_t p = begin; p < end; ++p) {
                SimilarityPlane gradient(of.h(), of.w());
                add(plane_of(of, p), plane_of(other, p), factor, gradient);
                T* to = target.data + p / C * of.h() * of.w() * C + p % C;
                for (std::size_t i = 0; i < gradient.size(); ++i)
                  to[i * std::size_t(C)] = (target.accumulate ? to[i * std::size_t(C)] : T(0)) + T(gradient[i]);
              }
            });
          };
          go(a, b, x_id);
          go(b, a, y_id);
        },
        a, b);
  return loss;
}

}  // namespace detail

/// 1 - the mean SSIM over pixels, channels and images.
class SSIMLoss {
 public:
  /// Throws ValueError for options out of their range.
  SSIMLoss() : SSIMLoss(SSIMLossOptions()) {}
  template <std::same_as<SSIMLossOptions> Options = SSIMLossOptions>
  explicit SSIMLoss(Options options) : similarity_("SSIMLoss", options) {}

  /// Throws ShapeError for images smaller than the window.
  template <detail::variable_operand X, detail::variable_operand Y>
  auto operator()(const X& prediction, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::SSIMLoss: prediction and target must have the same number of channels");
    const auto x = as_var(prediction);
    const auto y = as_var(target);
    if (x.h() < similarity_.window() || x.w() < similarity_.window())
      throw ShapeError(concat("SSIMLoss: images of ", x.h(), " x ", x.w(), " pixels are smaller than the window of ",
                              similarity_.window()));
    return detail::similarity_loss(
        "SSIMLoss", x, y, [s = similarity_](const auto& a, const auto& b) { return s.means(a, b).ssim; },
        [s = similarity_](const auto& a, const auto& b, double factor, auto& da) {
          s.add_gradient(a, b, factor, 0, da);
        });
  }

 private:
  detail::Similarity similarity_;
};

/// 1 - the mean MS-SSIM over channels and images: the product over five scales, each half the one before, of contrast
/// and structure, and at the last of all of SSIM, to powers of 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333. What is
/// negative counts as 0, and has the gradient 0.
class MSSSIMLoss {
 public:
  /// Throws ValueError for options out of their range.
  MSSSIMLoss() : MSSSIMLoss(SSIMLossOptions()) {}
  template <std::same_as<SSIMLossOptions> Options = SSIMLossOptions>
  explicit MSSSIMLoss(Options options) : similarity_("MSSSIMLoss", options) {}

  /// Throws ShapeError for images whose smaller side is 16 * (window - 1) or less: 160 pixels.
  template <detail::variable_operand X, detail::variable_operand Y>
  auto operator()(const X& prediction, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::MSSSIMLoss: prediction and target must have the same number of channels");
    const auto x = as_var(prediction);
    const auto y = as_var(target);
    const std::int64_t least = (similarity_.window() - 1) << (scales - 1);
    if (std::min(x.h(), x.w()) <= least)
      throw ShapeError(concat("MSSSIMLoss: images of ", x.h(), " x ", x.w(), " pixels; five scales want more than ",
                              least, " on the smaller side, or a smaller window"));
    return detail::similarity_loss(
        "MSSSIMLoss", x, y, [s = similarity_](const auto& a, const auto& b) { return Pyramid(s, a, b).value(); },
        [s = similarity_](const auto& a, const auto& b, double factor, auto& da) {
          Pyramid(s, a, b).add_gradient(s, factor, da);
        });
  }

 private:
  static constexpr int scales = 5;
  static constexpr std::array<double, scales> weights{0.0448, 0.2856, 0.3001, 0.2363, 0.1333};

  struct Pyramid {
    std::vector<detail::SimilarityPlane> a, b;
    std::array<double, scales> parts{};

    Pyramid(const detail::Similarity& similarity, const detail::SimilarityPlane& x, const detail::SimilarityPlane& y)
        : a{x}, b{y} {
      for (int s = 0; s < scales; ++s) {
        if (s > 0) {
          a.push_back(detail::halved(a.back()));
          b.push_back(detail::halved(b.back()));
        }
        const auto means = similarity.means(a.back(), b.back());
        parts[std::size_t(s)] = std::max(0.0, s + 1 < scales ? means.cs : means.ssim);
      }
    }
    double value() const {
      double product = 1;
      for (std::size_t s = 0; s < scales; ++s) product *= std::pow(parts[s], weights[s]);
      return product;
    }
    void add_gradient(const detail::Similarity& similarity, double factor, detail::SimilarityPlane& da) const {
      const double all = value();
      if (!(all > 0)) return;
      detail::SimilarityPlane below(0, 0);
      for (std::size_t s = scales; s-- > 0;) {
        detail::SimilarityPlane gradient(a[s].h, a[s].w);
        const double g = factor * weights[s] * all / parts[s];
        similarity.add_gradient(a[s], b[s], s + 1 < scales ? 0 : g, s + 1 < scales ? g : 0, gradient);
        if (s + 1 < scales) detail::add_halved_gradient(below, gradient);
        below = std::move(gradient);
      }
      for (std::size_t i = 0; i < da.size(); ++i) da[i] += below[i];
    }
  };

  detail::Similarity similarity_;
};

}}  // namespace strata::STRATA_ABI
