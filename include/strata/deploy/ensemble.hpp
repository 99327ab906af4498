// Self-ensemble: the mean of what a network makes of an image in its eight orientations, each turned back. Eight times
// the work for some hundredths to tenths of a decibel (Timofte, Rothe and Van Gool, "Seven ways to improve
// example-based single image super resolution", CVPR 2016).
//
//     st::Image<1> out = st::self_ensemble(image, [&](const st::Image<1>& x) { return st::run_tiled(net, x); });
#pragma once

#include <cstdint>
#include <utility>

#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Orientation k of a picture of h x w pixels: mirrored left to right when k >= 4, then turned counter-clockwise k % 4
/// times, as numpy.rot90(numpy.fliplr(x) if k >= 4 else x, k % 4).
struct Orientation {
  int k;
  std::int64_t h, w;  ///< of the picture before

  constexpr std::int64_t out_h() const { return k % 2 ? w : h; }
  constexpr std::int64_t out_w() const { return k % 2 ? h : w; }
  /// Where pixel (y, x) of the oriented picture is in the one before.
  constexpr std::pair<std::int64_t, std::int64_t> source(std::int64_t y, std::int64_t x) const {
    const std::int64_t row = k % 4 == 0 ? y : k % 4 == 1 ? x : k % 4 == 2 ? h - 1 - y : h - 1 - x;
    const std::int64_t column = k % 4 == 0 ? x : k % 4 == 1 ? w - 1 - y : k % 4 == 2 ? w - 1 - x : y;
    return {row, k >= 4 ? w - 1 - column : column};
  }
};

/// run(image) gives an image of the same shape or a whole multiple of it, in the host's memory. The result does not
/// depend on threads.
template <int C, class Run>
auto self_ensemble(const Image<C>& image, Run&& run) {
  image.tensor().require_host("self_ensemble");
  decltype(run(image)) sum;
  for (int k = 0; k < 8; ++k) {
    const Orientation turn{k, image.h(), image.w()};
    Image<C> turned(image.n(), turn.out_h(), turn.out_w());
    for (std::int64_t n = 0; n < image.n(); ++n)
      for (std::int64_t y = 0; y < turned.h(); ++y)
        for (std::int64_t x = 0; x < turned.w(); ++x) {
          const auto [row, column] = turn.source(y, x);
          for (int c = 0; c < C; ++c) turned(n, c, y, x) = image(n, c, row, column);
        }
    const auto result = run(std::as_const(turned));
    result.tensor().require_host("self_ensemble");
    const Orientation back{k, k % 2 ? result.w() : result.h(), k % 2 ? result.h() : result.w()};
    if (k == 0) {
      sum = decltype(sum)(result.n(), result.h(), result.w());
      sum.tensor().fill(0);
    }
    for (std::int64_t n = 0; n < result.n(); ++n)
      for (std::int64_t y = 0; y < result.h(); ++y)
        for (std::int64_t x = 0; x < result.w(); ++x) {
          const auto [row, column] = back.source(y, x);
          for (int c = 0; c < decltype(sum)::channels; ++c) sum(n, c, row, column) += result(n, c, y, x) / 8;
        }
  }
  return sum;
}

}}  // namespace strata::STRATA_ABI
