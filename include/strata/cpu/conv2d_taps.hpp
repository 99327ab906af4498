// Which pixels a convolution reads for a pixel of its result: one per tap, or zeros where a tap falls into the padding.
// Instead of copying patches, the direct kernels work on tables of pointers to these pixels (Dukhan, "The indirect
// convolution algorithm", 2019); taps that are neighbours in memory share a pointer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/simd.hpp"
#include "strata/math/conv2d_problem.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// Channel counts up to this are thin: they do not fill vectors, and have kernels of their own.
inline constexpr std::int64_t thin_channels = 4;

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

  /// How many taps lie next to each other in memory: those of a row of the kernel, or 1 with dilation.
  std::int64_t run() const {
    std::int64_t length = 1;
    while (length < tap_count && taps[length].dh == taps[0].dh) ++length;
    for (std::int64_t t = 1; t < length; ++t)
      if (taps[t].dw != taps[0].dw + t) return 1;
    return length;
  }
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

/// Walks over the pixels of a grid, row by row, image by image, and knows the sources of the one it is at.
template <class T>
class SourceWalk {
 public:
  SourceWalk(const Images<const T>& x, const TapGrid& grid, std::int64_t pixel)
      : x_(x),
        grid_(grid),
        n_(pixel / grid.columns / grid.rows),
        i_(pixel / grid.columns % grid.rows),
        j_(pixel % grid.columns) {
    for (std::int64_t t = 0; t < grid.tap_count; ++t) {
      low_h_ = std::min(low_h_, grid.taps[t].dh);
      high_h_ = std::max(high_h_, grid.taps[t].dh);
      low_w_ = std::min(low_w_, grid.taps[t].dw);
      high_w_ = std::max(high_w_, grid.taps[t].dw);
    }
    enter_row();
  }

  void advance() {
    corner_ += grid_.step * x_.c;
    if (++j_ < grid_.columns) return;
    j_ = 0;
    if (++i_ == grid_.rows) {
      i_ = 0;
      ++n_;
    }
    enter_row();
  }

  std::int64_t n() const { return n_; }
  std::int64_t i() const { return i_; }
  std::int64_t j() const { return j_; }

  /// Whether all taps lie inside the image.
  bool inside() const {
    const std::int64_t w = j_ * grid_.step;
    return row_inside_ && w + low_w_ >= 0 && w + high_w_ < x_.w;
  }
  bool inside(const Tap& tap) const {
    const std::int64_t h = i_ * grid_.step + tap.dh, w = j_ * grid_.step + tap.dw;
    return h >= 0 && h < x_.h && w >= 0 && w < x_.w;
  }
  /// The source under a tap that lies inside.
  const T* source(const Tap& tap) const { return x_.data + (corner_ + tap.offset); }

 private:
  void enter_row() {
    const std::int64_t h = i_ * grid_.step;
    row_inside_ = h + low_h_ >= 0 && h + high_h_ < x_.h;
    corner_ = ((n_ * x_.h + h) * x_.w + j_ * grid_.step) * x_.c;
  }

  const Images<const T> x_;
  const TapGrid& grid_;
  std::int64_t n_, i_, j_;
  std::int64_t corner_ = 0;  // of the pixel's source without a tap, in elements
  bool row_inside_ = false;
  std::int64_t low_h_ = 0, high_h_ = 0, low_w_ = 0, high_w_ = 0;
};

/// Finds the sources of the grid's pixels [first, first + count), in segments of `run` taps. Pixels are grouped:
/// segment s of pixel p is at sources[(p / group * segments + s) * group + p % group]. Where taps lie in the padding, a
/// patch with zeros is made in `patches`, which has room for all taps of all pixels. The last group is filled up with
/// its last pixel.
template <class T>
void find_sources(const Images<const T>& x, const TapGrid& grid, std::int64_t run, std::int64_t first,
                  std::int64_t count, std::int64_t group, T* patches, const T** sources) {
  const std::int64_t segments = grid.tap_count / run;
  SourceWalk<T> walk(x, grid, first);
  const T** to = sources;
  for (std::int64_t p = 0, place = 0; p < count; ++p, walk.advance()) {
    if (walk.inside()) {
      for (std::int64_t s = 0; s < segments; ++s) to[s * group + place] = walk.source(grid.taps[s * run]);
    } else {
      T* const patch = patches + p * grid.tap_count * x.c;
      for (std::int64_t t = 0; t < grid.tap_count; ++t) {
        if (walk.inside(grid.taps[t]))
          std::copy_n(walk.source(grid.taps[t]), x.c, patch + t * x.c);
        else
          std::fill_n(patch + t * x.c, x.c, T(0));
      }
      for (std::int64_t s = 0; s < segments; ++s) to[s * group + place] = patch + s * run * x.c;
    }
    if (++place == group) {
      place = 0;
      to += segments * group;
    }
  }
  if (const std::int64_t used = count % group; used != 0)
    for (std::int64_t s = 0; s < segments; ++s) std::fill(to + s * group + used, to + (s + 1) * group, to[s * group]);
}

/// Copies the patches of the next `count` pixels of a walk: element e (tap * channels + channel) of the p-th patch goes
/// to to[p * pixel + e * element].
template <class T>
void copy_patches(const TapGrid& grid, std::int64_t run, std::int64_t channels, std::int64_t count, SourceWalk<T>& walk,
                  T* to, std::int64_t pixel, std::int64_t element) {
  for (std::int64_t p = 0; p < count; ++p, to += pixel, walk.advance()) {
    T* place = to;
    if (walk.inside()) {
      for (std::int64_t t = 0; t < grid.tap_count; t += run, place += run * channels * element) {
        const T* const from = walk.source(grid.taps[t]);
        std::int64_t e = 0;
        for (; e + 3 <= run * channels; e += 3)  // 3 x 3 kernels have runs of 3, 6, 9 or 12
          simd::unroll<3>([&](auto k) STRATA_INLINED { place[(e + k) * element] = from[e + k]; });
        for (; e < run * channels; ++e) place[e * element] = from[e];
      }
    } else {
      for (std::int64_t t = 0; t < grid.tap_count; ++t) {
        const T* const from = walk.inside(grid.taps[t]) ? walk.source(grid.taps[t]) : nullptr;
        for (std::int64_t c = 0; c < channels; ++c, place += element) *place = from != nullptr ? from[c] : T(0);
      }
    }
  }
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

}  // namespace strata::inline STRATA_ABI::cpu
