// Which pixels a convolution reads for a pixel of its result. The direct kernels work on tiles of the result: the part
// of the source that a tile's taps read is the image itself where it has all of it, and a copy with zeros around it at
// the image's border. Either way the source under a tap lies at a fixed distance from the pixel's corner, so no kernel
// has a case for the border, and a pixel's sum has the same terms in the same order wherever the pixel lies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

/// Channel counts up to this are thin: they do not fill vectors, and have kernels of their own.
inline constexpr std::int64_t thin_channels = 4;

/// Whether each pixel of the result is made of the pixel at its place alone: then all are one long row.
constexpr bool pixels_alike(const Conv2dProblem& p) { return p.taps() == 1 && p.stride == 1 && !p.pads(); }

/// Whether the direct kernels compute a problem as matrix products of pixels of any images (conv2d_gather.hpp): both
/// sides fill vectors. Where all pixels are alike there is nothing to gather, and few weights are read again for every
/// few pixels without being prepared; many are worth it.
constexpr bool gathers_products(const Conv2dProblem& p, std::int64_t from, std::int64_t to) {
  return from >= 16 && to > thin_channels && (!pixels_alike(p) || from * to >= 64 * 64);
}

/// Images in memory, N,H,W,C; T is const where they are only read.
template <class T>
struct Images {
  T* data;
  std::int64_t n, h, w, c;

  std::int64_t pixels() const { return n * h * w; }
};

struct Tap {
  std::int64_t dh, dw;  ///< the source of pixel (i, j) of a grid is pixel (i * step + dh, j * step + dw)
  std::int64_t index;   ///< row * (columns of the kernel) + column
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

/// Writes the taps of a problem's kernel. Its corner lies `padding` rows above and `padding_w` columns before the
/// pixel.
inline void write_taps(const Conv2dProblem& p, std::int64_t padding, std::int64_t padding_w, Tap* taps) {
  for (std::int64_t t = 0, wide = p.kernel_columns(); t < p.taps(); ++t)
    taps[t] = {t / wide * p.dilation - padding, t % wide * p.dilation - padding_w, t};
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

/// A rectangle of a grid's pixels in one image.
struct GridTile {
  std::int64_t n, i, j, rows, columns;

  std::int64_t pixels() const { return rows * columns; }
};

/// The distances of a grid's taps from its pixels.
struct TapReach {
  explicit TapReach(const TapGrid& grid) {
    for (std::int64_t t = 0; t < grid.tap_count; ++t) {
      const Tap& tap = grid.taps[t];
      low_h = t == 0 ? tap.dh : std::min(low_h, tap.dh);
      high_h = t == 0 ? tap.dh : std::max(high_h, tap.dh);
      low_w = t == 0 ? tap.dw : std::min(low_w, tap.dw);
      high_w = t == 0 ? tap.dw : std::max(high_w, tap.dw);
    }
  }
  std::int64_t low_h = 0, high_h = 0, low_w = 0, high_w = 0;
};

/// Cuts the pixels of a grid into tiles, by the problem alone: first those whose taps all lie in the source, then a
/// band along each border.
class GridTiles {
 public:
  /// Tiles of at most `most_pixels`, at most `most_columns` wide, for kernels that take `pixel_work` multiply-adds of a
  /// vector for a pixel. They make up to 64 tasks, of a microsecond at least: handing out a task can take as long where
  /// threads are far apart.
  template <class T>
  GridTiles(const Images<const T>& x, const TapGrid& grid, std::int64_t most_columns, std::int64_t most_pixels,
            std::int64_t pixel_work) {
    const TapReach reach(grid);
    const auto inside = [&](std::int64_t low, std::int64_t high, std::int64_t extent, std::int64_t count) {
      const std::int64_t first = low < 0 ? (-low + grid.step - 1) / grid.step : 0;
      const std::int64_t end = extent > high ? (extent - 1 - high) / grid.step + 1 : 0;
      return std::pair{std::min(first, count), std::clamp(end, std::min(first, count), count)};
    };
    const auto [top, bottom] = inside(reach.low_h, reach.high_h, x.h, grid.rows);
    const auto [left, right] = inside(reach.low_w, reach.high_w, x.w, grid.columns);
    const std::int64_t pixels = x.n * grid.rows * grid.columns;
    tasks_ = std::clamp<std::int64_t>(pixels * pixel_work / 8192, 1, 64);
    most_pixels = std::clamp<std::int64_t>(pixels / tasks_, std::min<std::int64_t>(most_pixels, 24), most_pixels);
    const auto add = [&](std::int64_t i, std::int64_t end_i, std::int64_t j, std::int64_t end_j) {
      if (end_i == i || end_j == j) return;
      Region& region = regions_[region_count_++];
      const std::int64_t most = std::min(most_columns, most_pixels);
      region.i = i, region.j = j, region.rows = end_i - i, region.columns = end_j - j;
      region.across = (region.columns + most - 1) / most;
      region.tile_columns = (region.columns + region.across - 1) / region.across;
      if (const std::int64_t even = (region.tile_columns + 23) / 24 * 24; even <= most && even <= region.columns)
        region.tile_columns = even, region.across = (region.columns + even - 1) / even;  // whole blocks of 6 or 8
      region.tile_rows = std::clamp<std::int64_t>(most_pixels / region.tile_columns, 1, region.rows);
      region.down = (region.rows + region.tile_rows - 1) / region.tile_rows;
      region.first = count_;
      count_ += x.n * region.down * region.across;
    };
    add(top, bottom, left, right);
    add(0, top, 0, grid.columns);
    add(bottom, grid.rows, 0, grid.columns);
    add(top, bottom, 0, left);
    add(top, bottom, right, grid.columns);
  }

  std::int64_t count() const { return count_; }
  /// The most rows, columns and pixels of any tile.
  std::int64_t rows() const { return most([](const Region& r) { return r.tile_rows; }); }
  std::int64_t columns() const { return most([](const Region& r) { return r.tile_columns; }); }
  std::int64_t pixels() const { return most([](const Region& r) { return r.tile_rows * r.tile_columns; }); }

  GridTile operator[](std::int64_t tile) const {
    int at = region_count_ - 1;
    while (regions_[at].first > tile) --at;
    const Region& r = regions_[at];
    tile -= r.first;
    const std::int64_t i = tile / r.across % r.down * r.tile_rows, j = tile % r.across * r.tile_columns;
    return {tile / r.across / r.down, r.i + i, r.j + j, std::min(r.tile_rows, r.rows - i),
            std::min(r.tile_columns, r.columns - j)};
  }

  /// Calls f(tile, worker) for all tiles on all threads, and finish() behind the last of each task.
  template <class F, class Finish>
  void for_each(F&& f, Finish&& finish) const {
    const std::int64_t tasks = std::min(count_, tasks_);
    parallel_for(tasks, [&](std::int64_t task, int worker) {
      const std::int64_t end = count_ * (task + 1) / tasks;
      for (std::int64_t tile = count_ * task / tasks; tile < end; ++tile) f((*this)[tile], worker);
      finish();
    });
  }
  template <class F>
  void for_each(F&& f) const {
    for_each(f, [] {});
  }

 private:
  struct Region {
    std::int64_t first;  // tile
    std::int64_t i, j, rows, columns, tile_rows, tile_columns, down, across;
  };

  template <class F>
  std::int64_t most(F&& f) const {
    std::int64_t result = 0;
    for (int r = 0; r < region_count_; ++r) result = std::max(result, f(regions_[r]));
    return result;
  }

  Region regions_[5];
  int region_count_ = 0;
  std::int64_t count_ = 0, tasks_ = 1;
};

/// How wide tiles may be, so that the rows of the source that share a tap stay in the nearest cache.
template <class T>
std::int64_t widest_tile(const TapGrid& grid, std::int64_t channels) {
  if (grid.tap_count <= 1) return 192;
  return std::clamp<std::int64_t>(12288 / (channels * std::int64_t(sizeof(T))), 16, 96);
}

/// The sources of one tile. Pixel (i, j) of the tile has its corner at `corner` + i * row + j * column; segment s of
/// its taps, which lie next to each other in memory, begins at offsets[s] from there.
template <class T>
struct TileSources {
  const T* corner;
  std::int64_t row, column;
  const std::int64_t* offsets;
};

/// Finds the sources of tiles. `run` taps of one row of the kernel make a segment of `depth` elements. Where that is
/// little each element is a segment.
template <class T>
class SourceFinder {
 public:
  SourceFinder(const Images<const T>& x, const TapGrid& grid, const GridTiles& tiles)
      : depth(grid.run() * x.c <= 16 ? 1 : grid.run() * x.c),
        segments(grid.tap_count * x.c / depth),
        x_(x),
        step_(grid.step),
        reach_(grid),
        copy_width_(((tiles.columns() - 1) * step_ + reach_.high_w - reach_.low_w + 1) * x.c),
        copy_rows_((tiles.rows() - 1) * step_ + reach_.high_h - reach_.low_h + 1),
        offsets_(std::size_t(2 * segments)) {
    for (std::int64_t s = 0; s < segments; ++s) {
      const Tap& tap = grid.taps[s * depth / x.c];
      const std::int64_t place = (tap.dw - reach_.low_w) * x.c + s * depth % x.c;
      offsets_.data()[s] = (tap.dh - reach_.low_h) * x.w * x.c + place;
      offsets_.data()[segments + s] = (tap.dh - reach_.low_h) * copy_width_ + place;
    }
  }

  /// Elements of the memory that operator() copies to.
  std::int64_t workspace() const { return copy_width_ * copy_rows_; }

  TileSources<T> operator()(const GridTile& tile, T* workspace) {
    const std::int64_t h = tile.i * step_ + reach_.low_h, w = tile.j * step_ + reach_.low_w, width = x_.w * x_.c;
    const std::int64_t rows = (tile.rows - 1) * step_ + reach_.high_h - reach_.low_h + 1;
    const std::int64_t columns = (tile.columns - 1) * step_ + reach_.high_w - reach_.low_w + 1;
    const T* const image = x_.data + tile.n * x_.h * width;
    if (h >= 0 && h + rows <= x_.h && w >= 0 && w + columns <= x_.w)
      return {image + h * width + w * x_.c, step_ * width, step_ * x_.c, offsets_.data()};
    const std::int64_t first = std::clamp<std::int64_t>(-w, 0, columns);
    const std::int64_t end = std::clamp<std::int64_t>(x_.w - w, first, columns);
    for (std::int64_t r = 0; r < rows; ++r) {
      T* const to = workspace + r * copy_width_;
      if (h + r < 0 || h + r >= x_.h) {
        std::fill_n(to, columns * x_.c, T(0));
        continue;
      }
      std::fill(to, to + first * x_.c, T(0));
      std::copy_n(image + (h + r) * width + (w + first) * x_.c, (end - first) * x_.c, to + first * x_.c);
      std::fill(to + end * x_.c, to + columns * x_.c, T(0));
    }
    return {workspace, step_ * copy_width_, step_ * x_.c, offsets_.data() + segments};
  }

  const std::int64_t depth, segments;

 private:
  const Images<const T> x_;
  const std::int64_t step_;
  const TapReach reach_;
  const std::int64_t copy_width_, copy_rows_;
  Scratch<std::int64_t> offsets_;  // of the segments in the image, then in a copy
};

/// The sources and the results of a tile's pixels, in rows, the last repeated until a kernel's block is full.
template <class T>
struct TilePixels {
  static constexpr std::int64_t most = 192, more = 40;

  void find(const Images<T>& y, const TapGrid& grid, const GridTile& tile, const TileSources<T>& sources) {
    std::int64_t p = 0;
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const std::int64_t h = grid.first_h + (tile.i + i) * grid.every, w = grid.first_w + tile.j * grid.every;
      const T* from = sources.corner + i * sources.row;
      T* to = y.data + ((tile.n * y.h + h) * y.w + w) * y.c;
      for (std::int64_t j = 0; j < tile.columns; ++j, ++p, from += sources.column, to += grid.every * y.c) {
        source[p] = from;
        result[p] = to;
      }
    }
    std::fill_n(source + p, more, source[p - 1]);
    std::fill_n(result + p, more, result[p - 1]);
  }

  const T* source[most + more];
  T* result[most + more];
};

/// The channels of a result cut into panels of at most `most` vectors, as even as can be. Calls f(first_channel,
/// vectors) for each; vectors is a std::integral_constant.
template <class V, int Most, class F>
void for_each_even_panel(std::int64_t channels, F&& f) {
  const std::int64_t vectors = simd::padded<V>(channels) / simd::lanes<V>, panels = (vectors + Most - 1) / Most;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    const std::int64_t first = vectors * panel / panels, count = vectors * (panel + 1) / panels - first;
    simd::unroll<Most>([&](auto less) STRATA_INLINED {
      if (count == less + 1) f(first * simd::lanes<V>, std::integral_constant<int, less + 1>{});
    });
  }
}

/// Vectors of a full panel, and pixels (or elements of a patch) that a kernel takes at a time with it: sums, a row of
/// the panel and a broadcast fill the registers, and 8 addresses those for addresses. The loops take two steps at a
/// time, which is worth some percent.
inline constexpr int direct_vectors = simd::registers == 32 ? 4 : 2;
constexpr int direct_rows(int vectors) { return vectors == direct_vectors ? 6 : 8; }

}}}  // namespace strata::STRATA_ABI::cpu
