// An image with rows and columns put around it, or taken away.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"
#include "strata/math/padding_mode.hpp"

namespace strata { inline namespace STRATA_ABI {

/// New rows and columns; below 0 so many are taken away. In torch.nn.functional.pad's order.
struct Margins {
  std::int64_t left = 0, right = 0, top = 0, bottom = 0;
};

struct PadProblem {
  std::int64_t n = 1, h = 1, w = 1;
  int channels = 1;
  Margins margins;
  PaddingMode mode = PaddingMode::zeros;

  constexpr std::int64_t out_h() const { return h + margins.top + margins.bottom; }
  constexpr std::int64_t out_w() const { return w + margins.left + margins.right; }
  /// The row of the image that row i of the result shows, or -1.
  constexpr std::int64_t row(std::int64_t i) const { return padded_source(mode, i - margins.top, h); }
  constexpr std::int64_t column(std::int64_t j) const { return padded_source(mode, j - margins.left, w); }
};

}}  // namespace strata::STRATA_ABI
