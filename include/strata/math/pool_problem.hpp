// The extents of a pooling and its windows, as every backend takes them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The rows, or columns, of the image in a window: [begin, end). `count` is what a mean divides by along this side:
/// padding may count where it is in the window.
struct PoolSpan {
  std::int64_t begin, end, count;
};

/// A window of kernel x kernel pixels, moved by stride over an image with `padding` pixels around it, as PyTorch's; or,
/// where parts_h is positive, parts_h x parts_w windows that divide the image (adaptive pooling). Memory is N,H,W,C.
/// padding must not exceed kernel / 2: every window then holds a pixel of the image.
struct PoolProblem {
  std::int64_t n = 1, h = 1, w = 1;
  int channels = 1, kernel = 2, stride = 2;
  int padding = 0;
  bool ceil = false;          ///< a last window may reach beyond the padding
  bool count_padding = true;  ///< means divide by the pixels of the padding, too
  int parts_h = 0, parts_w = 0;

  constexpr std::int64_t out_h() const { return parts_h > 0 ? parts_h : windows(h, kernel, stride, padding, ceil); }
  constexpr std::int64_t out_w() const { return parts_w > 0 ? parts_w : windows(w, kernel, stride, padding, ceil); }
  constexpr PoolSpan rows(std::int64_t i) const { return span(i, h, parts_h); }
  constexpr PoolSpan columns(std::int64_t j) const { return span(j, w, parts_w); }
  /// Whether two windows may share a pixel.
  constexpr bool overlap() const { return overlap_along(h, parts_h) || overlap_along(w, parts_w); }

  /// Along a side of `size` pixels; below 1 where the window is too large.
  static constexpr std::int64_t windows(std::int64_t size, int kernel, int stride, int padding, bool ceil) {
    const std::int64_t room = size + 2 * padding - kernel + (ceil ? stride - 1 : 0);
    if (room < 0) return 0;
    const std::int64_t count = room / stride + 1;
    return ceil && (count - 1) * stride >= size + padding ? count - 1 : count;  // none begins behind the image
  }

 private:
  constexpr bool overlap_along(std::int64_t size, int parts) const {
    return parts > 0 ? size % parts != 0 : stride < kernel;
  }
  constexpr PoolSpan span(std::int64_t i, std::int64_t size, int parts) const {
    if (parts > 0) {
      const std::int64_t begin = i * size / parts, end = ((i + 1) * size + parts - 1) / parts;
      return {begin, end, end - begin};
    }
    const std::int64_t first = i * stride - padding, last = std::min(first + kernel, size + padding);
    const std::int64_t begin = std::max<std::int64_t>(first, 0), end = std::min(last, size);
    return {begin, end, count_padding ? last - first : end - begin};
  }
};

}}  // namespace strata::STRATA_ABI
