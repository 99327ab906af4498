// Samples drawn by weights, with replacement: for classes that are rare.
//
//     #include <strata/data/weighted_sampler.hpp>      // not part of strata.hpp
//     const st::WeightedRandomSampler drawn(photos, st::balanced_weights(labels), {.num_samples = 10000});
//     const st::DataLoader loader(drawn, {.batch_size = 32});
//
// PyTorch's WeightedRandomSampler tells a loader which samples to take; here it is a dataset, so everything else can be
// put on top of it. Which sample is drawn depends on (seed, epoch, index) alone: the same for any number of workers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

struct WeightedSamplerOptions {
  std::optional<std::size_t> num_samples = {};  ///< of an epoch; as many as the dataset has unless it is given
};

/// Weights with which each class is drawn equally often: one over the number of its samples.
inline std::vector<double> balanced_weights(std::span<const Label> labels) {
  std::map<Label, double> counts;
  for (const Label label : labels) ++counts[label];
  std::vector<double> weights;
  weights.reserve(labels.size());
  for (const Label label : labels) weights.push_back(1 / counts[label]);
  return weights;
}

template <Dataset D>
class WeightedRandomSampler {
 public:
  /// A weight for each sample, 0 or more, in any unit. Throws ValueError for other numbers of weights, for those that
  /// are negative or not finite, and where all are 0.
  WeightedRandomSampler(const D& dataset, std::span<const double> weights, const WeightedSamplerOptions& options = {})
      : WeightedRandomSampler(detail::Held<D>(dataset), weights, options, 0) {}
  WeightedRandomSampler(D&& dataset, std::span<const double> weights, const WeightedSamplerOptions& options = {})
      : WeightedRandomSampler(detail::Held<D>(std::move(dataset)), weights, options, 0) {}

  std::size_t size() const { return size_; }

  auto get(std::size_t index, Rng& rng) const {
    detail::check_index("WeightedRandomSampler", index, size_);
    return dataset_->get(drawn(rng), rng);
  }

 private:
  WeightedRandomSampler(detail::Held<D> dataset, std::span<const double> weights, const WeightedSamplerOptions& options,
                        int)
      : dataset_(std::move(dataset)), size_(options.num_samples.value_or(dataset_->size())) {
    if (weights.size() != dataset_->size())
      throw ValueError(
          concat("WeightedRandomSampler: got ", weights.size(), " weights for ", dataset_->size(), " samples"));
    double sum = 0;
    sums_.reserve(weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (!(weights[i] >= 0) || !std::isfinite(weights[i]))
        throw ValueError(
            concat("WeightedRandomSampler: weight ", i, " is ", weights[i], ", wanted a finite number of 0 or more"));
      sum += weights[i];
      sums_.push_back(sum);
    }
    if (!(sum > 0) || !std::isfinite(sum))
      throw ValueError("WeightedRandomSampler: the weights add up to nothing that can be drawn from");
  }

  /// The first sample whose sum is above a number drawn from [0, all): one of weight 0 never is.
  std::size_t drawn(Rng& rng) const {
    const std::uint64_t high = rng.bits();
    const std::uint64_t low = rng.bits();
    const double at = double((high << 32 | low) >> 11) * 0x1p-53 * sums_.back();
    const auto found = std::upper_bound(sums_.begin(), sums_.end(), at);
    // A product that was rounded up to the sum of all: the last that has a weight.
    return std::size_t((found != sums_.end() ? found : std::lower_bound(sums_.begin(), sums_.end(), sums_.back())) -
                       sums_.begin());
  }

  detail::Held<D> dataset_;
  std::size_t size_;
  std::vector<double> sums_;
};

}  // namespace strata::inline STRATA_ABI
