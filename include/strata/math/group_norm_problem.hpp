// The extents of a normalisation of every image by itself, as every backend takes them.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The channels of a group share one mean and one variance over all pixels of an image. Memory is N,H,W,C.
struct GroupNormProblem {
  std::int64_t n = 1, pixels = 0;  ///< images, and pixels of each
  int channels = 0, groups = 1;
  double eps = 1e-5;

  /// What the gradient wants kept: for each image four rows of `channels` numbers: scale, shift, mean, 1 / standard
  /// deviation.
  constexpr std::int64_t numbers() const { return n * 4 * channels; }
};

}}  // namespace strata::STRATA_ABI
