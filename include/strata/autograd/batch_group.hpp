// What the passes of one training step have in common where each runs a part of its batch, in this process or in
// another: how a layer that looks at the whole batch, as nn/sync_batch_norm.hpp, gets the numbers of all parts.
//
//     st::Train pass({.batch = &group});                        // distributed/data_parallel.hpp does it
//     const auto all = pass.batch()->gather(own);               // in a layer
//
// Numbers are added part after part, whoever computed which, so that sums have the same bits on any number of
// processes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

class BatchGroup {
 public:
  BatchGroup() = default;
  BatchGroup(const BatchGroup&) = delete;
  BatchGroup& operator=(const BatchGroup&) = delete;
  virtual ~BatchGroup() = default;

  /// Into how many parts the batch is cut, and how many of them are this process's: as many in each, one after another.
  virtual int parts() const = 0;
  virtual int own_parts() const = 0;
  /// From the numbers of this process's parts, as many of each, those of all parts, in their order. All processes call
  /// it, in the same order.
  virtual std::vector<double> gather(std::span<const double> own) = 0;
};

namespace detail {

/// Where the parts of a batch meet on the way back: each brings its numbers, and all take the sum.
class BatchMeeting {
 public:
  BatchMeeting(BatchGroup& group, std::size_t count)
      : group_(group), parts_(std::size_t(group.own_parts())), count_(count), own_(parts_ * count) {}

  /// Whether other parts of this process come to it.
  bool has_others() const { return parts_ > 1; }

  /// The numbers of one of this process's parts. With the last of them the sum is there.
  void bring(int part, std::span<const double> numbers) {
    std::copy(numbers.begin(), numbers.end(), own_.begin() + std::ptrdiff_t(std::size_t(part) * count_));
    if (++came_ < parts_) return;
    const std::vector<double> all = group_.gather(own_);
    sum_.assign(count_, 0.0);
    for (std::size_t i = 0; i < all.size(); ++i) sum_[i % count_] += all[i];
  }
  /// Over all parts. Throws Error where some have not come.
  const double* sum() const {
    if (sum_.empty())
      throw Error(
          "the parts of a batch took different ways through the network, which looks at the whole batch: "
          "what a forward does must not depend on an image's numbers");
    return sum_.data();
  }

 private:
  BatchGroup& group_;
  std::size_t parts_, count_, came_ = 0;
  std::vector<double> own_, sum_;
};

}  // namespace detail
}}  // namespace strata::STRATA_ABI
