// The extents of an upsampling, and which pixels each new one is made of. Whole factors; pixels are areas, not points,
// so that corners do not coincide (PyTorch's align_corners=False).
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class UpsampleMode { nearest, bilinear };

/// In one direction: (1 - second_share) of pixel `first` and second_share of pixel `second`.
struct UpsampleTap {
  std::int64_t first, second;
  double second_share;
};

struct UpsampleProblem {
  std::int64_t n = 1, h = 0, w = 0;  ///< of the small image
  int channels = 0, factor = 1;
  UpsampleMode mode = UpsampleMode::nearest;

  /// What pixel index * factor + part of the large image is made of, along a side of `size` small pixels.
  constexpr UpsampleTap tap(std::int64_t index, int part, std::int64_t size) const {
    if (mode == UpsampleMode::nearest) return {index, index, 0};
    // Its middle lies (part + 1/2) / factor - 1/2 small pixels behind the middle of small pixel `index`.
    const int halves = 2 * part + 1 - factor;
    const std::int64_t first = halves < 0 ? index - 1 : index;
    if (first < 0 || first + 1 == size) return {std::max<std::int64_t>(first, 0), std::max<std::int64_t>(first, 0), 0};
    return {first, first + 1, double(halves < 0 ? halves + 2 * factor : halves) / double(2 * factor)};
  }
};

}}  // namespace strata::STRATA_ABI
