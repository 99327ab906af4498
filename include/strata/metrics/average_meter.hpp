// The mean of what is measured along the way: losses of an epoch, PSNRs of a test set.
//
//     st::AverageMeter loss;
//     loss.add(batch_loss, batch_size);
//     std::cout << loss.mean();
#pragma once

#include <cstdint>
#include <limits>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

class AverageMeter {
 public:
  /// Counts `value` as the mean of `weight` items. Throws ValueError for a weight that is not positive.
  void add(double value, double weight = 1) {
    if (!(weight > 0)) throw ValueError(concat("AverageMeter::add: got weight ", weight, ", wanted more than 0"));
    last_ = value;
    sum_ += value * weight;
    weight_ += weight;
    ++count_;
  }
  void reset() { *this = AverageMeter(); }

  /// The weighted mean so far; NaN before the first value, so that an empty measurement is not taken for a good one.
  double mean() const { return count_ == 0 ? std::numeric_limits<double>::quiet_NaN() : sum_ / weight_; }
  /// The latest value; NaN before the first.
  double last() const { return last_; }
  std::int64_t count() const { return count_; }

 private:
  double sum_ = 0, weight_ = 0;
  double last_ = std::numeric_limits<double>::quiet_NaN();
  std::int64_t count_ = 0;
};

}}  // namespace strata::STRATA_ABI
