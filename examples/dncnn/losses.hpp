// The losses that --loss offers. A loss is an expression: its gradient follows from it.
#pragma once

#include <string>

#include "strata/strata.hpp"

namespace dncnn {

/// The loss called `name`, of prediction and target.
inline auto loss(const std::string& name, const auto& prediction, const auto& target) {
  if (name == "l1") return mean(abs(prediction - target));
  if (name == "charbonnier") return mean(sqrt(square(prediction - target) + 1e-6f));
  // The published recipe: half the squared error of an image, averaged over the batch.
  if (name == "half-sum") return sum(square(prediction - target)) * (0.5f / float(target.n()));
  return mean(square(prediction - target));
}

}  // namespace dncnn
