// Which pixels a convolution reads for a pixel of its result: one per tap, or zeros where a tap falls into the padding.
// Instead of copying patches, the direct kernels work on tables of pointers to these pixels (Dukhan, "The indirect
// convolution algorithm", 2019).
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/math/conv2d_problem.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// Images in memory, N,H,W,C; T is const where they are only read.
template <class T>
struct Images {
  T* data;
  std::int64_t n, h, w, c;

  std::int64_t pixels() const { return n * h * w; }
};

struct Tap {
  std::int64_t dh, dw;  ///< the source of pixel (i, j) of a grid is pixel (i * step + dh, j * step + dw)
  std::int64_t index;   ///< row * kernel + column in the kernel
  std::int64_t offset;  ///< of the source from pixel (i * step, j * step), in elements
};

/// Every `every`-th pixel of an image from (first_h, first_w) on, rows x columns of them, and the taps they all have.
struct TapGrid {
  std::int64_t first_h, first_w, every, rows, columns;
  std::int64_t step;
  const Tap* taps;
  std::int64_t tap_count;
};

template <class T>
Tap make_tap(const Images<const T>& x, std::int64_t dh, std::int64_t dw, std::int64_t index) {
  return {dh, dw, index, (dh * x.w + dw) * x.c};
}

/// Writes the taps of a kernel whose corner lies `padding` before the pixel, kernel * kernel of them.
template <class T>
void write_taps(const Images<const T>& x, std::int64_t kernel, std::int64_t dilation, std::int64_t padding, Tap* taps) {
  for (std::int64_t t = 0; t < kernel * kernel; ++t)
    taps[t] = make_tap(x, t / kernel * dilation - padding, t % kernel * dilation - padding, t);
}

/// Finds the sources in x of the grid's pixels [first, first + count), counted row by row, image by image. They are
/// grouped: pixel p under tap t is sources[(p / group * tap_count + t) * group + p % group]. Taps in the padding, and
/// pixels that fill up the last group, get `zeros`.
template <class T>
void find_sources(const Images<const T>& x, const TapGrid& grid, std::int64_t first, std::int64_t count,
                  std::int64_t group, const T* zeros, const T** sources) {
  std::int64_t low_h = 0, high_h = 0, low_w = 0, high_w = 0;
  for (std::int64_t t = 0; t < grid.tap_count; ++t) {
    low_h = std::min(low_h, grid.taps[t].dh);
    high_h = std::max(high_h, grid.taps[t].dh);
    low_w = std::min(low_w, grid.taps[t].dw);
    high_w = std::max(high_w, grid.taps[t].dw);
  }
  std::int64_t j = first % grid.columns, i = first / grid.columns % grid.rows, n = first / grid.columns / grid.rows;
  const std::int64_t padded_count = (count + group - 1) / group * group;
  for (std::int64_t p = 0, place = 0; p < padded_count; ++p) {
    const T** to = sources + (p - place) * grid.tap_count + place;
    const std::int64_t h = i * grid.step, w = j * grid.step, corner = ((n * x.h + h) * x.w + w) * x.c;
    const bool inside = h + low_h >= 0 && h + high_h < x.h && w + low_w >= 0 && w + high_w < x.w && p < count;
    for (std::int64_t t = 0; t < grid.tap_count; ++t) {
      const Tap& tap = grid.taps[t];
      const auto in_image = [&] {
        return p < count && h + tap.dh >= 0 && h + tap.dh < x.h && w + tap.dw >= 0 && w + tap.dw < x.w;
      };
      to[t * group] = inside || in_image() ? x.data + (corner + tap.offset) : zeros;
    }
    if (++place == group) place = 0;
    if (++j == grid.columns) {
      j = 0;
      if (++i == grid.rows) {
        i = 0;
        ++n;
      }
    }
  }
}

/// Copies the pixels of a table with group size 1 next to each other: patch[pixel][tap][channel], for 1 to 4 channels.
template <class T>
void copy_thin_patches(const T* const* sources, std::int64_t pixel_taps, std::int64_t channels, T* patch) {
  const auto copy = [&]<int Channels>(std::integral_constant<int, Channels>) {
    for (std::int64_t s = 0; s < pixel_taps; ++s, patch += Channels)
      for (int c = 0; c < Channels; ++c) patch[c] = sources[s][c];
  };
  if (channels == 1) copy(std::integral_constant<int, 1>{});
  if (channels == 2) copy(std::integral_constant<int, 2>{});
  if (channels == 3) copy(std::integral_constant<int, 3>{});
  if (channels == 4) copy(std::integral_constant<int, 4>{});
}

/// Where the weight of a tap lies that multiplies channel k of the source into channel `column` of the result.
template <class T>
struct WeightLayout {
  const T* first;               ///< tap 0, k = column = 0
  std::int64_t tap, k, column;  ///< distances

  const T& operator()(const Tap& t, std::int64_t from, std::int64_t to) const {
    return first[t.index * tap + from * k + to * column];
  }
};

/// Channel counts up to this are thin: they do not fill vectors, and have kernels of their own.
inline constexpr std::int64_t thin_channels = 4;

}  // namespace strata::inline STRATA_ABI::cpu
