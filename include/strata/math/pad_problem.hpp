// An image with rows and columns put around it, or taken away.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// What stands in the new pixels: zeros, the image mirrored at its outermost pixels (a b c d goes on as c b a), or the
/// outermost pixel again. As torch.nn.functional.pad's mode.
enum class PadMode : unsigned char { constant, reflect, replicate };

/// New rows and columns; below 0 so many are taken away. In torch.nn.functional.pad's order.
struct Margins {
  std::int64_t left = 0, right = 0, top = 0, bottom = 0;
};

struct PadProblem {
  std::int64_t n = 1, h = 1, w = 1;
  int channels = 1;
  Margins margins;
  PadMode mode = PadMode::constant;

  constexpr std::int64_t out_h() const { return h + margins.top + margins.bottom; }
  constexpr std::int64_t out_w() const { return w + margins.left + margins.right; }
  /// The row of the image that row i of the result shows, or -1.
  constexpr std::int64_t row(std::int64_t i) const { return source(i - margins.top, h); }
  constexpr std::int64_t column(std::int64_t j) const { return source(j - margins.left, w); }

 private:
  constexpr std::int64_t source(std::int64_t at, std::int64_t size) const {
    if (at >= 0 && at < size) return at;
    if (mode == PadMode::constant) return -1;
    if (mode == PadMode::reflect) return at < 0 ? -at : 2 * (size - 1) - at;
    return at < 0 ? 0 : size - 1;
  }
};

}  // namespace strata::inline STRATA_ABI
