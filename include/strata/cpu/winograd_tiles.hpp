// How a batch of images is covered by Winograd's tiles, and how a tile's pixels are read and written: in place where
// they lie inside the image, as zeros where they lie in the padding, through a copy where channels do not fill a
// vector.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/simd.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/winograd.hpp"

namespace strata::inline STRATA_ABI::cpu::winograd {

/// The tiles of a batch: every image is covered by rows x columns tiles, which are counted through image after image.
struct Tiles {
  struct Place {
    std::int64_t n, h, w;  ///< the first pixel of a tile
  };

  constexpr Tiles(std::int64_t n, std::int64_t h, std::int64_t w)
      : rows((h + step - 1) / step), columns((w + step - 1) / step), count(n * rows * columns) {}

  constexpr Place operator[](std::int64_t index) const {
    return {index / (rows * columns), index / columns % rows * step, index % columns * step};
  }

  std::int64_t rows, columns, count;
};

/// Addresses of pixels that lie in rows and columns.
template <class T>
struct PixelGrid {
  T* first;
  std::int64_t row, column;

  [[gnu::always_inline]] T* operator()(int i, int j) const { return first + i * row + j * column; }
  /// Where the next tile of the row will find pixel (i, j): to be fetched early. It need not exist.
  [[gnu::always_inline]] const char* next_tile(int i, int j) const { return early((*this)(i, j), column); }

  static const char* early(T* pixel, std::int64_t column) {
    return reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(pixel) +
                                         std::uintptr_t(step * column) * sizeof(float));
  }
};

/// Addresses of pixels that lie anywhere.
template <class T, int Size>
struct PixelTable {
  T* pixels[Size * Size];
  std::int64_t channel = 0, column;

  [[gnu::always_inline]] T* operator()(int i, int j) const { return pixels[i * Size + j] + channel; }
  [[gnu::always_inline]] const char* next_tile(int i, int j) const {
    return PixelGrid<T>::early((*this)(i, j), column);
  }
};

/// The Size x Size pixels from `place` on, and `width` channels of them from `first` on.
template <int Size, class T>
struct Window {
  /// Pixels outside the image are found at `outside`: `width` zeros to read, or room for them to write.
  Window(const Images<T>& images, const Tiles::Place& place, std::int64_t first, std::int64_t width, T* outside)
      : images_(images), place_(place), width_(width), outside_(outside) {
    image_ = images.data + place.n * images.h * images.w * images.c + first;
    inside_ = place.h >= 0 && place.w >= 0 && place.h + Size <= images.h && place.w + Size <= images.w;
  }

  /// Calls f(pixel, c) for each vector of channels, where pixel(i, j) is the address of channel c of a pixel. Channels
  /// that do not fill the last vector are first copied to a buffer, with zeros after them, and back unless they are
  /// const.
  template <class F>
  void for_each_vector(F&& f) const {
    using V = simd::Vector<float>;
    constexpr std::int64_t lanes = simd::lanes<V>;
    const std::int64_t whole = width_ / lanes * lanes, row = images_.w * images_.c, column = images_.c;
    if (inside_) {
      T* const corner = image_ + place_.h * row + place_.w * column;
      for (std::int64_t c = 0; c < whole; c += lanes) f(PixelGrid<T>{corner + c, row, column}, c);
      if (whole == width_) return;
    }
    PixelTable<T, Size> table;
    table.column = column;
    for (int i = 0; i < Size; ++i)
      for (int j = 0; j < Size; ++j) table.pixels[i * Size + j] = in_image(i, j) ? pixel(i, j) : outside_;
    if (!inside_)
      for (; table.channel < whole; table.channel += lanes) f(table, table.channel);
    if (whole < width_) {
      float rest[Size * Size * lanes]{};
      for (int p = 0; p < Size * Size; ++p) std::copy_n(table.pixels[p] + whole, width_ - whole, rest + p * lanes);
      f(PixelGrid<T>{rest, Size * lanes, lanes}, whole);
      if constexpr (!std::is_const_v<T>)
        for (int p = 0; p < Size * Size; ++p) std::copy_n(rest + p * lanes, width_ - whole, table.pixels[p] + whole);
    }
  }

 private:
  bool in_image(int i, int j) const {
    const std::int64_t h = place_.h + i, w = place_.w + j;
    return h >= 0 && h < images_.h && w >= 0 && w < images_.w;
  }
  T* pixel(int i, int j) const { return image_ + ((place_.h + i) * images_.w + place_.w + j) * images_.c; }

  const Images<T>& images_;
  Tiles::Place place_;
  std::int64_t width_;
  T* outside_;
  T* image_;
  bool inside_;
};

}  // namespace strata::inline STRATA_ABI::cpu::winograd
