// Losses. Each is a small object called with prediction and target; your own is one line of arithmetic.
//
//     st::MSELoss mse({.reduction = st::Reduction::half_sum});          // DnCNN's recipe
//     auto loss = mse(net(pass, noisy), clean);
//     auto own = mean(sqrt(square(prediction - target) + 1e-6f));
//
// More are in nn/losses/, each included by itself: segmentation.hpp (Dice, focal), similarity.hpp (SSIM, MS-SSIM),
// smoothness.hpp (total variation, edges), adversarial.hpp (GANs), perceptual.hpp (features of a frozen network,
// LPIPS).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/core/parallel.hpp"
#include "strata/nn/loss_target.hpp"

namespace strata { inline namespace STRATA_ABI {

/// What a loss does with the elements: their mean, their sum, or half of it.
enum class Reduction { mean, sum, half_sum };

/// Losses take their options by a template, so that in Loss({}) the braces are options and no other loss.
struct LossOptions {
  Reduction reduction = Reduction::mean;
};

namespace detail {
template <class E>
auto reduce_as(const E& expression, Reduction reduction, double scale = 1) {
  const std::int64_t size = expression.shape().size();
  if (size == 0) throw ShapeError("loss: the images are empty");
  return reduce(expression, scale * (reduction == Reduction::mean  ? 1.0 / double(size)
                                     : reduction == Reduction::sum ? 1.0
                                                                   : 0.5));
}

/// d^2 / 2 of the difference d where |d| < delta, delta * (|d| - delta / 2) elsewhere. With e = d limited to [-delta,
/// delta] that is e * (d - e / 2) in both parts, so nothing cancels and the gradient is e.
auto huber(const auto& prediction, const auto& target, double delta) {
  const auto difference = prediction - loss_target(prediction, target);
  const auto limited = clamp(difference, -delta, delta);
  return limited * (difference - 0.5 * limited);
}
}  // namespace detail

/// Of (prediction - target)^2.
class MSELoss {
 public:
  MSELoss() : MSELoss(LossOptions()) {}
  template <std::same_as<LossOptions> Options = LossOptions>
  explicit MSELoss(Options options) : options_(options) {}
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(square(prediction - detail::loss_target(prediction, target)), options_.reduction);
  }

 private:
  LossOptions options_;
};

/// Of |prediction - target|.
class L1Loss {
 public:
  L1Loss() : L1Loss(LossOptions()) {}
  template <std::same_as<LossOptions> Options = LossOptions>
  explicit L1Loss(Options options) : options_(options) {}
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(abs(prediction - detail::loss_target(prediction, target)), options_.reduction);
  }

 private:
  LossOptions options_;
};

struct CharbonnierOptions {
  double epsilon = 1e-3;
  Reduction reduction = Reduction::mean;
};

/// Of sqrt((prediction - target)^2 + epsilon^2): L1 with a round bottom (Charbonnier et al., 1994).
class CharbonnierLoss {
 public:
  CharbonnierLoss() : CharbonnierLoss(CharbonnierOptions()) {}
  template <std::same_as<CharbonnierOptions> Options = CharbonnierOptions>
  explicit CharbonnierLoss(Options options) : options_(options) {
    if (!(options_.epsilon > 0))
      throw ValueError(concat("CharbonnierLoss: epsilon is ", options_.epsilon, ", wanted more than 0"));
  }
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(
        sqrt(square(prediction - detail::loss_target(prediction, target)) + options_.epsilon * options_.epsilon),
        options_.reduction);
  }

 private:
  CharbonnierOptions options_;
};

struct HuberOptions {
  double delta = 1;  ///< above 0, in the images' units
  Reduction reduction = Reduction::mean;
};

/// Of d^2 / 2 where |d| = |prediction - target| is below delta, of delta * (|d| - delta / 2) elsewhere, as
/// torch.nn.HuberLoss: squares for small errors, and outliers count no more than in L1 (Huber, 1964).
class HuberLoss {
 public:
  /// Throws ValueError unless delta is above 0.
  HuberLoss() : HuberLoss(HuberOptions()) {}
  template <std::same_as<HuberOptions> Options = HuberOptions>
  explicit HuberLoss(Options options) : options_(options) {
    if (!(options_.delta > 0 && std::isfinite(options_.delta)))
      throw ValueError(concat("HuberLoss: delta is ", options_.delta, ", wanted a number above 0"));
  }
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(detail::huber(prediction, target, options_.delta), options_.reduction);
  }

 private:
  HuberOptions options_;
};

struct SmoothL1Options {
  double beta = 1;  ///< at least 0, in the images' units
  Reduction reduction = Reduction::mean;
};

/// Of d^2 / (2 beta) where |d| = |prediction - target| is below beta, of |d| - beta / 2 elsewhere, as
/// torch.nn.SmoothL1Loss: HuberLoss with delta = beta, divided by beta. With beta = 0 it is L1Loss.
class SmoothL1Loss {
 public:
  /// Throws ValueError for a negative beta.
  SmoothL1Loss() : SmoothL1Loss(SmoothL1Options()) {}
  template <std::same_as<SmoothL1Options> Options = SmoothL1Options>
  explicit SmoothL1Loss(Options options) : options_(options) {
    if (!(options_.beta >= 0 && std::isfinite(options_.beta)))
      throw ValueError(concat("SmoothL1Loss: beta is ", options_.beta, ", wanted a number of at least 0"));
  }
  auto operator()(const auto& prediction, const auto& target) const {
    if (options_.beta == 0)
      return detail::reduce_as(abs(prediction - detail::loss_target(prediction, target)), options_.reduction);
    return detail::reduce_as(detail::huber(prediction, target, options_.beta), options_.reduction, 1 / options_.beta);
  }

 private:
  SmoothL1Options options_;
};

struct BCEWithLogitsOptions {
  double pos_weight = 1;  ///< what the positive part counts for, at least 0: above 1 where positives are rare
  Reduction reduction = Reduction::mean;
};

/// Of -(pos_weight * y * log sigmoid(x) + (1 - y) * log(1 - sigmoid(x))), x the logit and y the target in [0, 1] of
/// each element, as torch.nn.BCEWithLogitsLoss: yes or no for every pixel and channel. Logits are what a network gives
/// without a Sigmoid at its end. Computed as (1 - y) * x + (1 + (pos_weight - 1) * y) * (log(1 + e^-|x|) + max(-x, 0)),
/// which overflows for no logit.
class BCEWithLogitsLoss {
 public:
  /// Throws ValueError for a negative pos_weight.
  BCEWithLogitsLoss() : BCEWithLogitsLoss(BCEWithLogitsOptions()) {}
  template <std::same_as<BCEWithLogitsOptions> Options = BCEWithLogitsOptions>
  explicit BCEWithLogitsLoss(Options options) : options_(options) {
    if (!(options_.pos_weight >= 0 && std::isfinite(options_.pos_weight)))
      throw ValueError(
          concat("BCEWithLogitsLoss: pos_weight is ", options_.pos_weight, ", wanted a number of at least 0"));
  }
  auto operator()(const auto& logits, const auto& target_or_numbers) const {
    const auto& target = detail::loss_target(logits, target_or_numbers);
    return detail::reduce_as((1 - target) * logits + (1 + (options_.pos_weight - 1) * target) *
                                                         (log(1 + exp(-abs(logits))) + maximum(-logits, 0)),
                             options_.reduction);
  }

 private:
  BCEWithLogitsOptions options_;
};

struct KLDivOptions {
  bool log_target = false;  ///< whether the target is given as logarithms too
  bool batchmean = false;   ///< the sum over the number of images, which is the divergence's mean; else `reduction`
  Reduction reduction = Reduction::mean;
};

/// Of target * (log target - x), x the logarithms of the predicted probabilities, as torch.nn.KLDivLoss: where the
/// target is 0 it is 0. The mean is over all elements, as PyTorch's; the divergence itself is with batchmean.
class KLDivLoss {
 public:
  KLDivLoss() : KLDivLoss(KLDivOptions()) {}
  template <std::same_as<KLDivOptions> Options = KLDivOptions>
  explicit KLDivLoss(Options options) : options_(options) {}
  auto operator()(const auto& log_prediction, const auto& target_given) const {
    const auto& target = detail::loss_target(log_prediction, target_given);
    double scale = 1;
    Reduction reduction = options_.reduction;
    if (options_.batchmean) {
      const std::int64_t n = log_prediction.shape().n();
      scale = 1 / double(std::max<std::int64_t>(n, 1)), reduction = Reduction::sum;
    }
    if (options_.log_target) return detail::reduce_as(exp(target) * (target - log_prediction), reduction, scale);
    return detail::reduce_as(target * (log(maximum(target, 1e-37)) - log_prediction), reduction, scale);
  }

 private:
  KLDivOptions options_;
};

struct CrossEntropyOptions {
  std::vector<double> weight = {};  ///< what each class counts for, at least 0; empty: all alike. On the CPU only
  Label ignore_index = -100;        ///< pixels with this label do not count. On the CPU only
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;  ///< in [0, 1]: how much of the target is shared among all classes
};

/// Mean or sum over pixels of -log softmax(logits)[label] (half_sum: half the sum). logits has a channel for each
/// class; labels has N*H*W elements, one for each pixel in row order: of shape (N) for images of one pixel, (N, H, W)
/// for segmentation. With label smoothing s the target is 1 - s + s / C at the label and s / C at the other classes, as
/// torch.nn.CrossEntropyLoss's (Szegedy et al., 2016); with weights each class's term is multiplied by its weight, and
/// the mean is over the weights of the labels. Throws ValueError for a label that is no class and for labels none of
/// which counts, DeviceError for weights and ignored labels on an accelerator.
class CrossEntropyLoss {
 public:
  /// Throws ValueError for a label_smoothing outside [0, 1], and for a weight that is negative or not finite.
  CrossEntropyLoss() : CrossEntropyLoss(CrossEntropyOptions()) {}
  template <std::same_as<CrossEntropyOptions> Options = CrossEntropyOptions>
  explicit CrossEntropyLoss(Options options) : options_(std::move(options)) {
    for (const double weight : options_.weight)
      if (!(weight >= 0 && std::isfinite(weight)))
        throw ValueError(
            concat("CrossEntropyLoss: a class has the weight ", weight, ", wanted a number of at least 0"));
    if (!(options_.label_smoothing >= 0 && options_.label_smoothing <= 1))
      throw ValueError(concat("CrossEntropyLoss: label_smoothing is ", options_.label_smoothing, ", wanted [0, 1]"));
  }

  template <detail::variable_operand X>
  auto operator()(const X& logits, const Tensor<Label>& labels) const {
    return compute(as_var(logits), labels);
  }

 private:
  template <int C, class T>
  Scalar<T> compute(Var<C, T> x, const Tensor<Label>& labels) const {
    const std::int64_t count = x.n() * x.h() * x.w();
    const bool wrong_order = labels.shape().rank() == 3 && labels.shape() != Shape{x.n(), x.h(), x.w()};
    if (labels.size() != count || count == 0 || wrong_order)
      throw ShapeError(concat("CrossEntropyLoss: ", labels.size(), " labels for logits of ", x.shape().str(),
                              ", which want ", count,
                              wrong_order ? concat("; theirs are of shape ", labels.shape().str()) : ""));
    if (!options_.weight.empty() && options_.weight.size() != std::size_t(C))
      throw ValueError(concat("CrossEntropyLoss: ", options_.weight.size(), " weights for ", C, " classes"));
    if (on_accelerator(labels.device()) && labels.device() != x.device())
      throw DeviceError(concat("CrossEntropyLoss: the logits are on ", x.device().str(), " and the labels on ",
                               labels.device().str()));
    bool ignored = false;
    // on an accelerator a wrong one makes the loss NaN
    for (std::int64_t i = 0; !on_accelerator(labels.device()) && i < count; ++i)
      if (const Label label = labels.data()[i]; label == options_.ignore_index)
        ignored = true;
      else if (label < 0 || label >= C)
        throw ValueError(concat("CrossEntropyLoss: label ", label, " is no class; there are ", C, ", counted from 0"));
    const double factor = options_.reduction == Reduction::mean ? 1.0 / double(count)
                          : options_.reduction == Reduction::sum ? 1.0 : 0.5;
    if (on_accelerator(x.device())) {
      if (ignored || !options_.weight.empty())
        throw DeviceError(concat("CrossEntropyLoss: there are no class weights and ignored labels on ",
                                 x.device().str(), ": train on the CPU, or leave them out"));
      return on_device(x, labels.to(x.device()), options_.label_smoothing, factor);
    }
    const double shared = options_.label_smoothing / C, own = 1 - options_.label_smoothing;  // of the target
    if (ignored || !options_.weight.empty()) return weighted(x, labels, count, shared, own);
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const T* row = x.data() + i * C;
      total += log_sum_exp<C>(row) - own * double(row[labels.data()[i]]);
      if (shared != 0) total -= shared * std::accumulate(row, row + C, 0.0);
    }
    Scalar<T> loss(T(total * factor), x.tape());
    if (loss.tape() != nullptr)
      loss.tape()->record(loss.id(), [x, labels, id = loss.id(), factor, count, shared, own](Tape& tape) {
        const double g = double(*tape.gradient<T>(id)) * factor;
        const auto dx = tape.target<T>(x.id());
        if (!dx) return;
        parallel_ranges(count, 256, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const T* row = x.data() + i * C;
            const double log_total = log_sum_exp<C>(row);
            for (int c = 0; c < C; ++c) {
              const double probability = std::exp(double(row[c]) - log_total);
              T& to = dx.data[i * C + c];
              to = (dx.accumulate ? to : T(0)) + T(g * (probability - shared - (c == labels.data()[i] ? own : 0.0)));
            }
          }
        });
      }, x, labels);
    return loss;
  }

  /// With weights, 0 for labels that do not count.
  template <int C, class T>
  Scalar<T> weighted(const Var<C, T>& x, const Tensor<Label>& labels, std::int64_t count, double shared,
                     double own) const {
    std::array<double, std::size_t(C)> weights;
    weights.fill(1);
    std::copy(options_.weight.begin(), options_.weight.end(), weights.begin());
    const double all = shared * std::accumulate(weights.begin(), weights.end(), 0.0);
    double total = 0, counted = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      if (labels.data()[i] == options_.ignore_index) continue;
      const T* row = x.data() + i * C;
      const std::size_t label = std::size_t(labels.data()[i]);
      total += (weights[label] * own + all) * log_sum_exp<C>(row) - weights[label] * own * double(row[label]);
      for (std::size_t c = 0; shared != 0 && c < weights.size(); ++c) total -= shared * weights[c] * double(row[c]);
      counted += weights[label];
    }
    if (options_.reduction == Reduction::mean && !(counted > 0))
      throw ValueError(
          "CrossEntropyLoss: no label counts: all are ignored, or of classes of weight 0, and there is no mean");
    const double factor = options_.reduction == Reduction::mean  ? 1.0 / counted
                          : options_.reduction == Reduction::sum ? 1.0
                                                                 : 0.5;
    Scalar<T> loss(T(total * factor), x.tape());
    if (loss.tape() != nullptr)
      loss.tape()->record(loss.id(), [x, labels, id = loss.id(), factor, count, shared, own, weights, all,
                                      ignore = options_.ignore_index](Tape& tape) {
        const double g = double(*tape.gradient<T>(id)) * factor;
        const auto dx = tape.target<T>(x.id());
        if (!dx) return;
        parallel_ranges(count, 256, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const T* row = x.data() + i * C;
            const bool counts = labels.data()[i] != ignore;
            const std::size_t label = counts ? std::size_t(labels.data()[i]) : 0;
            const double log_total = log_sum_exp<C>(row), mine = weights[label] * own;
            for (std::size_t c = 0; c < weights.size(); ++c) {
              const double probability = std::exp(double(row[c]) - log_total);
              const double gradient = probability * (mine + all) - shared * weights[c] - (c == label ? mine : 0.0);
              T& to = dx.data[i * C + std::int64_t(c)];
              to = (dx.accumulate ? to : T(0)) + (counts ? T(g * gradient) : T(0));
            }
          }
        });
      }, x, labels);
    return loss;
  }

  template <int C, class T>
  static Scalar<T> on_device(const Var<C, T>& x, const Tensor<Label>& labels, double smoothing, double factor) {
    if constexpr (!std::is_same_v<T, float>) {
      detail::throw_not_float(x.device());
    } else {
      Accelerator& gpu = accelerator(x.device());
      const std::int64_t rows = x.size() / C;
      const Storage result = x.pool().take(sizeof(float));
      gpu.cross_entropy_forward(rows, C, x.data(), labels.data(), smoothing, factor,
                                static_cast<float*>(result.data()));
      Scalar<float> loss(result, x.tape());
      if (loss.tape() != nullptr)
        loss.tape()->record(loss.id(), [&gpu, x, labels, id = loss.id(), smoothing, factor, rows](Tape& tape) {
          if (const auto dx = tape.target<float>(x.id()))
            gpu.cross_entropy_backward(rows, C, x.data(), labels.data(), smoothing, factor,
                                       {.values = tape.gradient<float>(id), .uniform = true}, dx.data, dx.accumulate);
        }, x, labels);
      return loss;
    }
  }

  template <int C, class T>
  static double log_sum_exp(const T* row) {
    const double largest = double(*std::max_element(row, row + C));
    double total = 0;
    for (int c = 0; c < C; ++c) total += std::exp(double(row[c]) - largest);
    return largest + std::log(total);
  }

  CrossEntropyOptions options_;
};

}}  // namespace strata::STRATA_ABI
