// Negative log likelihood, for networks that end in log_softmax. (Cross entropy of logits, which is both in one, is
// CrossEntropyLoss in nn/loss.hpp.)
//
//     const st::NLLLoss nll({.ignore_index = 255});
//     auto loss = nll(st::log_softmax(pass, logits), labels);    // labels: class numbers, a Tensor<Label>
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/losses/host_loss.hpp"
#include "strata/nn/losses/segmentation.hpp"

namespace strata { inline namespace STRATA_ABI {

struct NLLOptions {
  std::vector<double> weight = {};  ///< what each class counts for, at least 0; empty: all alike
  Label ignore_index = -100;        ///< pixels with this label do not count
  Reduction reduction = Reduction::mean;
};

/// Of -weight[label] * x[label], x the logarithms of the probabilities of the classes, as torch.nn.NLLLoss: a channel
/// for each class, a label for each pixel in row order. The mean is over the weights of the labels.
class NLLLoss {
 public:
  /// Throws ValueError for a weight that is negative or not finite.
  NLLLoss() : NLLLoss(NLLOptions()) {}
  template <std::same_as<NLLOptions> Options = NLLOptions>
  explicit NLLLoss(Options options) : options_(std::move(options)) {
    for (const double weight : options_.weight)
      if (!(weight >= 0 && std::isfinite(weight)))
        throw ValueError(concat("NLLLoss: a class has the weight ", weight, ", wanted a number of at least 0"));
  }

  template <detail::variable_operand X>
  auto operator()(const X& log_probabilities, const Tensor<Label>& labels) const {
    return compute(as_var(log_probabilities), labels);
  }

 private:
  template <int C, class T>
  Scalar<T> compute(const Var<C, T>& x, const Tensor<Label>& labels) const {
    detail::check_host_loss("NLLLoss", x);
    detail::check_labels<C>("NLLLoss", x.shape(), labels, options_.ignore_index);
    if (!options_.weight.empty() && options_.weight.size() != std::size_t(C))
      throw ValueError(concat("NLLLoss: ", options_.weight.size(), " weights for ", C, " classes"));
    const std::int64_t pixels = x.size() / C;
    const auto weight = [weights = options_.weight, ignored = options_.ignore_index](Label label) {
      return label == ignored ? 0.0 : weights.empty() ? 1.0 : weights[std::size_t(label)];
    };
    double total = 0, counted = 0;
    for (std::int64_t i = 0; i < pixels; ++i)
      if (const Label label = labels.data()[i]; weight(label) != 0) {
        total -= weight(label) * double(x.data()[i * C + label]);
        counted += weight(label);
      }
    if (options_.reduction == Reduction::mean && !(counted > 0))
      throw ValueError("NLLLoss: no label counts: all are ignored, or of classes of weight 0, and there is no mean");
    const double factor = options_.reduction == Reduction::mean  ? 1 / counted
                          : options_.reduction == Reduction::sum ? 1.0
                                                                 : 0.5;
    return detail::host_loss(
        x, factor * total,
        [labels, weight, pixels, factor](double g, const auto& dx) {
          parallel_ranges(pixels, 1024, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              const Label label = labels.data()[i];
              for (int c = 0; c < C; ++c) {
                T& to = dx.data[i * C + c];
                to = (dx.accumulate ? to : T(0)) - (c == label ? T(g * factor * weight(label)) : T(0));
              }
            }
          });
        },
        labels);
  }

  NLLOptions options_;
};

}}  // namespace strata::STRATA_ABI
