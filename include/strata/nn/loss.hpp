// Losses. Each is a small object called with prediction and target; your own is one line of arithmetic.
//
//     st::MSELoss mse({.reduction = st::Reduction::half_sum});          // DnCNN's recipe
//     auto loss = mse(net(pass, noisy), clean);
//     auto own = mean(sqrt(square(prediction - target) + 1e-6f));
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/core/parallel.hpp"

namespace strata::inline STRATA_ABI {

/// What a loss does with the elements: their mean, their sum, or half of it.
enum class Reduction { mean, sum, half_sum };

struct LossOptions {
  Reduction reduction = Reduction::mean;
};

namespace detail {
template <class E>
auto reduce_as(const E& expression, Reduction reduction) {
  const std::int64_t size = expression.shape().size();
  if (size == 0) throw ShapeError("loss: the images are empty");
  return reduce(expression, reduction == Reduction::mean ? 1.0 / double(size) : reduction == Reduction::sum ? 1.0 : 0.5);
}
}  // namespace detail

/// Of (prediction - target)^2.
class MSELoss {
 public:
  explicit MSELoss(LossOptions options = {}) : options_(options) {}
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(square(prediction - target), options_.reduction);
  }

 private:
  LossOptions options_;
};

/// Of |prediction - target|.
class L1Loss {
 public:
  explicit L1Loss(LossOptions options = {}) : options_(options) {}
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(abs(prediction - target), options_.reduction);
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
  explicit CharbonnierLoss(CharbonnierOptions options = {}) : options_(options) {
    if (!(options_.epsilon > 0))
      throw ValueError(concat("CharbonnierLoss: epsilon is ", options_.epsilon, ", wanted more than 0"));
  }
  auto operator()(const auto& prediction, const auto& target) const {
    return detail::reduce_as(sqrt(square(prediction - target) + options_.epsilon * options_.epsilon), options_.reduction);
  }

 private:
  CharbonnierOptions options_;
};

/// Mean or sum over pixels of -log softmax(logits)[label] (half_sum: half the sum). logits has a channel for each class;
/// labels has N*H*W elements, one for each pixel in row order, so N for images of one pixel. Throws ValueError for a label
/// that is no class.
class CrossEntropyLoss {
 public:
  explicit CrossEntropyLoss(LossOptions options = {}) : options_(options) {}

  template <detail::variable_operand X>
  auto operator()(const X& logits, const Tensor<Label>& labels) const {
    return compute(as_var(logits), labels);
  }

 private:
  template <int C, class T>
  Scalar<T> compute(Var<C, T> x, const Tensor<Label>& labels) const {
    const std::int64_t count = x.n() * x.h() * x.w();
    if (labels.size() != count || count == 0)
      throw ShapeError(concat("CrossEntropyLoss: ", labels.size(), " labels for logits of ", x.shape().str(),
                              ", which want ", count));
    if (on_accelerator(labels.device()) && labels.device() != x.device())
      throw DeviceError(concat("CrossEntropyLoss: the logits are on ", x.device().str(), " and the labels on ", labels.device().str()));
    for (std::int64_t i = 0; !on_accelerator(labels.device()) && i < count; ++i)  // on an accelerator a wrong one makes the loss NaN
      if (const Label label = labels.data()[i]; label < 0 || label >= C)
        throw ValueError(concat("CrossEntropyLoss: label ", label, " is no class; there are ", C, ", counted from 0"));
    const double factor = options_.reduction == Reduction::mean ? 1.0 / double(count)
                          : options_.reduction == Reduction::sum ? 1.0 : 0.5;
    if (on_accelerator(x.device())) return on_device(x, labels.to(x.device()), factor);
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const T* row = x.data() + i * C;
      total += log_sum_exp<C>(row) - double(row[labels.data()[i]]);
    }
    Scalar<T> loss(T(total * factor), x.tape());
    if (loss.tape() != nullptr)
      loss.tape()->record(loss.id(), [x, labels, id = loss.id(), factor, count](Tape& tape) {
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
              to = (dx.accumulate ? to : T(0)) + T(g * (probability - (c == labels.data()[i] ? 1.0 : 0.0)));
            }
          }
        });
      });
    return loss;
  }

  template <int C, class T>
  static Scalar<T> on_device(const Var<C, T>& x, const Tensor<Label>& labels, double factor) {
    if constexpr (!std::is_same_v<T, float>) {
      detail::throw_not_float(x.device());
    } else {
      Accelerator& gpu = accelerator(x.device());
      const std::int64_t rows = x.size() / C;
      const Storage result = x.pool().take(sizeof(float));
      gpu.cross_entropy_forward(rows, C, x.data(), labels.data(), factor, static_cast<float*>(result.data()));
      float value = 0;
      gpu.download(&value, result.data(), sizeof value);
      Scalar<float> loss(value, x.tape());
      if (loss.tape() != nullptr)
        loss.tape()->record(loss.id(), [&gpu, x, labels, id = loss.id(), factor, rows](Tape& tape) {
          if (const auto dx = tape.target<float>(x.id()))
            gpu.cross_entropy_backward(rows, C, x.data(), labels.data(), factor, {.factor = *tape.gradient<float>(id)}, dx.data,
                                       dx.accumulate);
        });
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

  LossOptions options_;
};

}  // namespace strata::inline STRATA_ABI
