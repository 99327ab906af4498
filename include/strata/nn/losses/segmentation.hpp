// Losses for classes of pixels that are rare: Dice, which compares areas, and the focal loss, which makes little of
// what is easy. (Cross entropy of every pixel, with weights and labels that do not count, is CrossEntropyLoss in
// nn/loss.hpp.)
//
//     const st::DiceLoss dice;
//     auto loss = cross_entropy(logits, mask) + dice(logits, mask);  // mask: class numbers, a Tensor<Label> (N, H, W)
//     auto binary = dice(logits, areas);                          // areas: an Image with a channel of 0 and 1 for each
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "strata/nn/loss.hpp"
#include "strata/nn/losses/host_loss.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// softmax over the channels of one pixel.
template <class T>
void softmax_row(int channels, const T* logits, double* probabilities) {
  const double largest = double(*std::max_element(logits, logits + channels));
  double total = 0;
  for (int c = 0; c < channels; ++c) total += probabilities[c] = std::exp(double(logits[c]) - largest);
  for (int c = 0; c < channels; ++c) probabilities[c] /= total;
}
inline double sigmoid_of(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
/// log(1 + e^x).
inline double softplus_of(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

/// Throws for labels of another shape, and for one that is neither a class nor the ignored one. Returns how many count.
template <int C>
std::int64_t check_labels(const char* who, const Shape& logits, const Tensor<Label>& labels, Label ignored) {
  if (on_accelerator(labels.device()))
    throw DeviceError(concat(who, ": the labels are on ", labels.device().str(), ", wanted on the host"));
  const std::int64_t count = logits.size() / C;
  if (labels.size() != count ||
      (labels.shape().rank() == 3 && labels.shape() != Shape{logits.n(), logits.h(), logits.w()}))
    throw ShapeError(concat(who, ": labels of shape ", labels.shape().str(), " for logits of ", logits.str(),
                            ", which want ", count));
  std::int64_t counted = 0;
  for (const Label label : labels.span()) {
    if (label == ignored) continue;
    if (label < 0 || label >= C)
      throw ValueError(concat(who, ": label ", label, " is no class; there are ", C, ", counted from 0"));
    ++counted;
  }
  return counted;
}

}  // namespace detail

struct DiceOptions {
  double smooth =
      1e-5;  ///< added above and below the line, at least 0: what an area that is in neither image has for a loss
  bool batch = false;              ///< areas of all images of the batch together, instead of each image's
  bool include_background = true;  ///< whether class 0 counts
  Label ignore_index = -100;       ///< pixels with this label are in no area
};

/// The mean over images and classes of 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), the sums over pixels; p
/// is the sigmoid of the logits for a target that is an image (every channel yes or no), their softmax over the
/// channels for class numbers. Milletari et al., 2016, in the form of monai.losses.DiceLoss (sigmoid or softmax,
/// to_onehot_y).
class DiceLoss {
 public:
  /// Throws ValueError for a negative smooth.
  DiceLoss() : DiceLoss(DiceOptions()) {}
  template <std::same_as<DiceOptions> Options = DiceOptions>
  explicit DiceLoss(Options options) : options_(options) {
    if (!(options_.smooth >= 0 && std::isfinite(options_.smooth)))
      throw ValueError(concat("DiceLoss: smooth is ", options_.smooth, ", wanted a number of at least 0"));
  }

  template <detail::variable_operand X>
  auto operator()(const X& logits, const Tensor<Label>& labels) const {
    return of_labels(as_var(logits), labels);
  }
  template <detail::variable_operand X, detail::variable_operand Y>
  auto operator()(const X& logits, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::DiceLoss: logits and target must have the same number of channels");
    return of_areas(as_var(logits), detail::constant_target("DiceLoss", target));
  }

 private:
  template <int C, class T>
  auto of_labels(const Var<C, T>& x, const Tensor<Label>& labels) const {
    detail::check_host_loss("DiceLoss", x);
    detail::check_labels<C>("DiceLoss", x.shape(), labels, options_.ignore_index);
    const auto target = [labels](std::int64_t pixel, int c) { return labels.data()[pixel] == c ? 1.0 : 0.0; };
    const auto counts = [labels, ignored = options_.ignore_index](std::int64_t pixel) {
      return labels.data()[pixel] != ignored;
    };
    return compute<true>(x, target, counts, labels);
  }
  template <int C, class T>
  auto of_areas(const Var<C, T>& x, const Image<C, T>& areas) const {
    detail::check_host_loss("DiceLoss", x);
    detail::check_same_shape("DiceLoss", x.shape(), areas.shape());
    const auto target = [areas](std::int64_t pixel, int c) { return double(areas.data()[pixel * C + c]); };
    return compute<false>(
        x, target, [](std::int64_t) { return true; }, areas);
  }

  template <bool Softmax, int C, class T>
  static void probabilities(const T* logits, double* p) {
    if constexpr (Softmax)
      detail::softmax_row(C, logits, p);
    else
      for (int c = 0; c < C; ++c) p[c] = detail::sigmoid_of(double(logits[c]));
  }

  template <bool Softmax, int C, class T, class Target, class Counts, class Kept>
  Scalar<T> compute(const Var<C, T>& x, const Target& target, const Counts& counts, const Kept& kept) const {
    struct Area {
      double both = 0, sum = 0;
    };
    const std::int64_t pixels = x.h() * x.w(), n = x.n();
    std::vector<Area> areas(std::size_t(n * C));
    parallel_ranges(n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t image = begin; image < end; ++image)
        for (std::int64_t pixel = image * pixels; pixel < (image + 1) * pixels; ++pixel) {
          if (!counts(pixel)) continue;
          double p[C];
          probabilities<Softmax, C>(x.data() + pixel * C, p);
          for (int c = 0; c < C; ++c) {
            Area& area = areas[std::size_t(image * C + c)];
            area.both += p[c] * target(pixel, c);
            area.sum += p[c] + target(pixel, c);
          }
        }
    });
    if (options_.batch)
      for (int c = 0; c < C; ++c) {
        Area all;
        for (std::int64_t i = 0; i < n; ++i)
          all.both += areas[std::size_t(i * C + c)].both, all.sum += areas[std::size_t(i * C + c)].sum;
        for (std::int64_t i = 0; i < n; ++i) areas[std::size_t(i * C + c)] = all;
      }
    const int first = options_.include_background || C == 1 ? 0 : 1;
    const double smooth = options_.smooth, weight = 1 / double((options_.batch ? 1 : n) * (C - first));
    double value = 0;
    for (std::int64_t i = 0; i < (options_.batch ? 1 : n); ++i)
      for (int c = first; c < C; ++c) {
        const Area& area = areas[std::size_t(i * C + c)];
        const double below = area.sum + smooth;
        value += weight * (below > 0 ? 1 - (2 * area.both + smooth) / below : 0);
      }
    return detail::host_loss(
        x, value,
        [x, target, counts, areas = std::move(areas), pixels, n, first, smooth, weight](double g, const auto& dx) {
          parallel_ranges(n * pixels, 1024, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t pixel = begin; pixel < end; ++pixel) {
              double p[C], dp[C] = {}, dot = 0;
              const bool counted = counts(pixel);
              probabilities<Softmax, C>(x.data() + pixel * C, p);
              for (int c = first; counted && c < C; ++c) {
                const Area& area = areas[std::size_t(pixel / pixels * C + c)];
                const double below = area.sum + smooth;
                if (below > 0)
                  dp[c] = -weight * (2 * target(pixel, c) * below - (2 * area.both + smooth)) / (below * below);
                dot += dp[c] * p[c];
              }
              for (int c = 0; c < C; ++c) {
                const double gradient = Softmax ? p[c] * (dp[c] - dot) : dp[c] * p[c] * (1 - p[c]);
                T& to = dx.data[pixel * C + c];
                to = (dx.accumulate ? to : T(0)) + T(g * gradient);
              }
            }
          });
        },
        kept);
  }

  DiceOptions options_;
};

struct FocalOptions {
  double gamma = 2;  ///< at least 0: how little easy pixels count; 0 is cross entropy
  double alpha =
      0.25;  ///< in [0, 1]: what a yes counts for, 1 - alpha a no; below 0: both count 1. Not for class numbers
  Reduction reduction = Reduction::mean;
  Label ignore_index = -100;  ///< pixels with this label do not count, in the mean neither
};

/// Of alpha_t (1 - p_t)^gamma times cross entropy, p_t the probability given to what is true (Lin et al., 2017). For a
/// target that is an image, with values in [0, 1], every channel is yes or no, as torchvision.ops.sigmoid_focal_loss;
/// for class numbers p is the softmax over the channels and alpha does not count.
class FocalLoss {
 public:
  /// Throws ValueError for a negative gamma, or an alpha above 1.
  FocalLoss() : FocalLoss(FocalOptions()) {}
  template <std::same_as<FocalOptions> Options = FocalOptions>
  explicit FocalLoss(Options options) : options_(options) {
    if (!(options_.gamma >= 0 && std::isfinite(options_.gamma)))
      throw ValueError(concat("FocalLoss: gamma is ", options_.gamma, ", wanted a number of at least 0"));
    if (!(options_.alpha <= 1))
      throw ValueError(concat("FocalLoss: alpha is ", options_.alpha, ", wanted [0, 1], or below 0 for none"));
  }

  template <detail::variable_operand X>
  auto operator()(const X& logits, const Tensor<Label>& labels) const {
    return of_labels(as_var(logits), labels);
  }
  template <detail::variable_operand X, detail::variable_operand Y>
  auto operator()(const X& logits, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::FocalLoss: logits and target must have the same number of channels");
    return of_image(as_var(logits), detail::constant_target("FocalLoss", target));
  }

 private:
  static constexpr std::int64_t block = 4096;  // pixels or elements that are summed as one

  double factor(std::int64_t count) const {
    return options_.reduction == Reduction::mean ? 1 / double(count) : options_.reduction == Reduction::sum ? 1.0 : 0.5;
  }

  template <int C, class T>
  auto of_image(const Var<C, T>& x, const Image<C, T>& target) const {
    detail::check_host_loss("FocalLoss", x);
    detail::check_same_shape("FocalLoss", x.shape(), target.shape());
    const std::int64_t size = x.size();
    const double scale = factor(size), gamma = options_.gamma, alpha = options_.alpha;
    // The value and its derivative for x.
    const auto at = [gamma, alpha](double logit, double t, double& value, double& derivative) {
      const double p = detail::sigmoid_of(logit), ce = (1 - t) * logit + detail::softplus_of(-logit);
      const double rest = p * (1 - t) + (1 - p) * t;  // 1 - p_t
      const double weight = alpha >= 0 ? alpha * t + (1 - alpha) * (1 - t) : 1.0;
      const double power = std::pow(rest, gamma);
      value = weight * power * ce;
      const double slope = rest > 0 && gamma > 0 ? gamma * power / rest * (1 - 2 * t) * p * (1 - p) : 0.0;
      derivative = weight * (slope * ce + power * (p - t));
    };
    const std::int64_t blocks = (size + block - 1) / block;
    const double value = scale * detail::sum_of_terms(blocks, [&](std::int64_t b) {
                           double total = 0, one = 0, unused = 0;
                           for (std::int64_t i = b * block; i < std::min(size, (b + 1) * block); ++i) {
                             at(double(x.data()[i]), double(target.data()[i]), one, unused);
                             total += one;
                           }
                           return total;
                         });
    return detail::host_loss(
        x, value,
        [x, target, at, size, scale](double g, const auto& dx) {
          parallel_ranges(size, block, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              double unused = 0, derivative = 0;
              at(double(x.data()[i]), double(target.data()[i]), unused, derivative);
              dx.data[i] = (dx.accumulate ? dx.data[i] : T(0)) + T(g * scale * derivative);
            }
          });
        },
        target);
  }

  template <int C, class T>
  auto of_labels(const Var<C, T>& x, const Tensor<Label>& labels) const {
    detail::check_host_loss("FocalLoss", x);
    const std::int64_t counted = detail::check_labels<C>("FocalLoss", x.shape(), labels, options_.ignore_index);
    if (options_.reduction == Reduction::mean && counted == 0)
      throw ValueError("FocalLoss: no label counts: all are ignored, and there is no mean");
    const std::int64_t pixels = x.size() / C;
    const double scale = factor(counted), gamma = options_.gamma;
    const Label ignored = options_.ignore_index;
    const std::int64_t blocks = (pixels + block - 1) / block;
    const double value = scale * detail::sum_of_terms(blocks, [&](std::int64_t b) {
                           double total = 0, p[C];
                           for (std::int64_t i = b * block; i < std::min(pixels, (b + 1) * block); ++i) {
                             const Label label = labels.data()[i];
                             if (label == ignored) continue;
                             detail::softmax_row(C, x.data() + i * C, p);
                             total -= std::pow(1 - p[label], gamma) * log_of(C, x.data() + i * C, int(label));
                           }
                           return total;
                         });
    return detail::host_loss(
        x, value,
        [x, labels, pixels, scale, gamma, ignored](double g, const auto& dx) {
          parallel_ranges(pixels, 256, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              double p[C];
              detail::softmax_row(C, x.data() + i * C, p);
              const Label label = labels.data()[i];
              if (label == ignored) {
                if (!dx.accumulate) std::fill_n(dx.data + i * C, C, T(0));
                continue;
              }
              const double own = p[label], rest = 1 - own, power = std::pow(rest, gamma),
                           log_own = log_of(C, x.data() + i * C, int(label));
              // d/dp of -(1 - p)^gamma log p, times p; then dp_label/dx_c = p_label ((c == label) - p_c)
              const double slope = (rest > 0 && gamma > 0 ? gamma * power / rest * log_own * own : 0.0) - power;
              for (int c = 0; c < C; ++c) {
                T& to = dx.data[i * C + c];
                to = (dx.accumulate ? to : T(0)) + T(g * scale * slope * ((c == label ? 1.0 : 0.0) - p[c]));
              }
            }
          });
        },
        labels);
  }

  /// log softmax(row)[label].
  template <class T>
  static double log_of(int channels, const T* row, int label) {
    const double largest = double(*std::max_element(row, row + channels));
    double total = 0;
    for (int c = 0; c < channels; ++c) total += std::exp(double(row[c]) - largest);
    return double(row[label]) - largest - std::log(total);
  }

  FocalOptions options_;
};

}}  // namespace strata::STRATA_ABI
