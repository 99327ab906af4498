// How a batch of images is covered by Winograd's tiles, and how a tile's pixels are read and written: in place where
// they lie inside the image, as zeros where they lie in the padding, through a copy where channels do not fill a
// vector. The algorithm knows 3 x 3 filters without dilation; larger ones are cut into such parts, and with dilation
// d a tile takes every d-th pixel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/core/simd.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

/// A square filter cut into parts of 3 x 3 taps, `across` in each direction. The last part ends where the filter ends,
/// so that no pixel beyond the filter's reach is read; the taps that it shares with the part before belong to that one.
struct FilterParts {
  constexpr explicit FilterParts(std::int64_t filter)
      : kernel(filter), across((filter + 2) / 3), count(across * across) {}

  /// The first row of the filter under part `row`, or the first column.
  constexpr std::int64_t begin(std::int64_t row) const { return std::min(3 * row, kernel - 3); }
  /// Which of the filter's taps tap t of part `part` is, or -1 if that belongs to another part.
  constexpr std::int64_t tap(std::int64_t part, std::int64_t t) const {
    const std::int64_t row = part / across, column = part % across;
    const std::int64_t i = begin(row) + t / 3, j = begin(column) + t % 3;
    return i < 3 * row || j < 3 * column ? -1 : i * kernel + j;
  }

  std::int64_t kernel, across, count;
};

/// The tiles of a batch, counted through image after image. With a dilation, the pixels whose rows and columns leave
/// the same remainders are covered by rows x columns tiles, remainder after remainder; some tiles may then have no
/// pixel.
struct Tiles {
  struct Place {
    std::int64_t n, h, w;  ///< the first pixel of a tile
  };

  constexpr Tiles(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t d = 1)
      : dilation(d),
        rows((h + step * d - 1) / (step * d)),
        columns((w + step * d - 1) / (step * d)),
        count(n * d * d * rows * columns) {}

  constexpr Place operator[](std::int64_t index) const {
    const std::int64_t i = index / columns % rows * step, j = index % columns * step, image = index / (rows * columns);
    if (dilation == 1) return {image, i, j};
    return {image / (dilation * dilation), i * dilation + image / dilation % dilation, j * dilation + image % dilation};
  }

  std::int64_t dilation, rows, columns, count;
};

/// Addresses of pixels that lie in rows and columns.
template <class T>
struct PixelGrid {
  T* first;
  std::int64_t row, column;

  [[gnu::always_inline]] T* operator()(int i, int j) const { return first + i * row + j * column; }
  /// Where the next tile of the row will find pixel (i, j): to be fetched early. It need not exist.
  [[gnu::always_inline]] std::uintptr_t next_tile(int i, int j) const { return early((*this)(i, j), column); }

  static std::uintptr_t early(T* pixel, std::int64_t column) {
    return reinterpret_cast<std::uintptr_t>(pixel) + std::uintptr_t(step * column) * sizeof(float);
  }
};

/// Addresses of pixels that lie anywhere.
template <class T, int Size>
struct PixelTable {
  T* pixels[Size * Size];
  std::int64_t channel = 0, column;

  [[gnu::always_inline]] T* operator()(int i, int j) const { return pixels[i * Size + j] + channel; }
  [[gnu::always_inline]] std::uintptr_t next_tile(int i, int j) const {
    return PixelGrid<T>::early((*this)(i, j), column);
  }
};

/// Size x Size pixels from `place` on, `dilation` apart, and `width` channels of them from `first` on.
template <int Size, class T>
class Window {
 public:
  /// Pixels outside the image are found at `outside`: `width` zeros to read, or room for them to write.
  Window(const Images<T>& images, const Tiles::Place& place, std::int64_t dilation, std::int64_t first,
         std::int64_t width, T* outside)
      : images_(images), place_(place), dilation_(dilation), first_(first), width_(width), outside_(outside) {
    image_ = images.data + place.n * images.h * images.w * images.c + first;
    const std::int64_t reach = dilation * (Size - 1);
    inside_ = place.h >= 0 && place.w >= 0 && place.h + reach < images.h && place.w + reach < images.w;
  }

  /// Whether all pixels lie in the image and the channels are whole vectors.
  bool whole() const { return inside_ && width_ % lanes == 0; }

  /// Calls f(pixels, c) for each vector of channels, where pixels.read(i, j) are channels c... of a pixel as `map`
  /// gives them, and zeros outside the image. map.at<V>(channel)(value, address) is called once for each value in the
  /// image.
  template <class Map, class F>
  void read(const Map& map, F&& f) const {
    if (inside_) {
      T* const corner = pixel(0, 0);
      for (std::int64_t c = 0; c < vectors(); c += lanes)
        f(Reader<PixelGrid<T>, Map>{{corner + c, row(), column()}, map.template at<V>(first_ + c), nullptr}, c);
      if (vectors() == width_) return;
    }
    PixelTable<T, Size> table = addresses();
    if (!inside_)
      for (; table.channel < vectors(); table.channel += lanes)
        f(Reader<PixelTable<T, Size>, Map>{table, map.template at<V>(first_ + table.channel), outside_ + table.channel},
          table.channel);
    if (vectors() < width_) {
      float rest[Size * Size * lanes]{};
      for (std::int64_t c = vectors(); c < width_; ++c) {
        auto one = map.template at<float>(first_ + c);
        for (int p = 0; p < Size * Size; ++p)
          if (table.pixels[p] != outside_)
            rest[p * lanes + c - vectors()] = one(table.pixels[p][c], table.pixels[p] + c);
      }
      f(Reader<PixelGrid<float>, Unchanged>{{rest, Size * lanes, lanes}, {}, nullptr}, vectors());
    }
  }

  /// Calls f(pixels, c) for each vector of channels, to write channels c... to the addresses pixels(i, j).
  template <class F>
  void write(F&& f) const {
    if (inside_) {
      T* const corner = pixel(0, 0);
      for (std::int64_t c = 0; c < vectors(); c += lanes) f(PixelGrid<T>{corner + c, row(), column()}, c);
      if (vectors() == width_) return;
    }
    PixelTable<T, Size> table = addresses();
    if (!inside_)
      for (; table.channel < vectors(); table.channel += lanes) f(table, table.channel);
    if (vectors() < width_) {
      const std::int64_t count = width_ - vectors();
      float rest[Size * Size * lanes]{};
      for (int p = 0; p < Size * Size; ++p) std::copy_n(table.pixels[p] + vectors(), count, rest + p * lanes);
      f(PixelGrid<T>{rest, Size * lanes, lanes}, vectors());
      for (int p = 0; p < Size * Size; ++p) std::copy_n(rest + p * lanes, count, table.pixels[p] + vectors());
    }
  }

  /// Calls f(address) for each pixel that lies in the image; `address` is that of its first channel.
  template <class F>
  void for_each_pixel(F&& f) const {
    for (int i = 0; i < Size; ++i)
      for (int j = 0; j < Size; ++j)
        if (in_image(i, j)) f(pixel(i, j));
  }

 private:
  using V = simd::Vector<float>;
  static constexpr std::int64_t lanes = simd::lanes<V>;

  /// Pixels with what is done to them where they are read.
  template <class Pixels, class Map>
  struct Reader : Pixels {
    decltype(std::declval<const Map&>().template at<V>(0)) map;
    T* outside;  // of this vector of channels

    [[gnu::always_inline]] V read(int i, int j) const {
      auto* const address = (*this)(i, j);
      if constexpr (!Map::keeps_zero && !std::is_same_v<Pixels, PixelGrid<T>>)
        if (address == outside) return V{};
      return map(simd::load<V>(address), address);
    }
    [[gnu::always_inline]] void prefetch(int i, int j) const { map.prefetch(this->next_tile(i, j)); }
  };

  // distances of the window's rows, of its columns
  std::int64_t row() const { return dilation_ * images_.w * images_.c; }
  std::int64_t column() const { return dilation_ * images_.c; }
  std::int64_t vectors() const { return width_ / lanes * lanes; }  // channels in whole vectors
  PixelTable<T, Size> addresses() const {
    PixelTable<T, Size> table;
    table.column = column();
    for (int i = 0; i < Size; ++i)
      for (int j = 0; j < Size; ++j) table.pixels[i * Size + j] = in_image(i, j) ? pixel(i, j) : outside_;
    return table;
  }
  bool in_image(int i, int j) const {
    const std::int64_t h = place_.h + dilation_ * i, w = place_.w + dilation_ * j;
    return h >= 0 && h < images_.h && w >= 0 && w < images_.w;
  }
  T* pixel(int i, int j) const {
    return image_ + (place_.h * images_.w + place_.w) * images_.c + i * row() + j * column();
  }

  const Images<T>& images_;
  Tiles::Place place_;
  std::int64_t dilation_, first_, width_;
  T* outside_;
  T* image_;
  bool inside_;
};

/// Transforms tiles of the source of a convolution, part by part of its filters: v[plane][part * channels + c].
class TileReader {
  using V = simd::Vector<float>;
  static constexpr std::int64_t lanes = simd::lanes<V>;

 public:
  TileReader(const Images<const float>& x, const FilterParts& parts, std::int64_t padding, std::int64_t dilation)
      : x_(x), parts_(parts), padding_(padding), dilation_(dilation), zeros_(std::size_t(x.c)),
        taps_(std::size_t(gathers() ? parts.count * x.c : 1)) {
    std::fill_n(zeros_.data(), x.c, 0.0f);
    if (!gathers()) return;
    for (std::int64_t k = 0; k < parts.count * x.c; ++k) {
      const Tiles::Place place = corner({0, 0, 0}, k / x.c);
      taps_.data()[k] = {place.h + padding, place.w + padding,
                         ((place.h + padding) * x.w + place.w + padding) * x.c + k % x.c, k % x.c};
    }
  }

  /// Numbers between the tiles of a plane, so that the last vector of a part has room.
  static std::int64_t stride(std::int64_t parts, std::int64_t channels) {
    return simd::padded<V>((parts - 1) * channels + simd::padded<V>(channels));
  }

  /// Channels [channel, channel + width) under parts [part, part + count), as `map` gives them, for the tile whose
  /// result begins at `place`. Several parts want all channels.
  template <class Map, class Factor>
  void transform(const Map& map, const Tiles::Place& place, std::int64_t part, std::int64_t count, std::int64_t channel,
                 std::int64_t width, Factor* v, std::int64_t plane) const {
    if (gathers() && width == x_.c) return gather(map, corner(place, 0), part * x_.c, count * x_.c, v, plane);
    for (std::int64_t p = 0; p < count; ++p, v += width)  // the last vector may reach into the next part: in order
      Window<tile, const float>(x_, corner(place, part + p), dilation_, channel, width, zeros_.data())
          .read(map, [&](const auto& pixel, std::int64_t c) { transform_input(pixel, v + c, plane); });
  }

  /// All channels of a tile of a 3 x 3 filter: chunks of `chunk` channels lie `distance` apart.
  template <class Map>
  void transform_in_chunks(const Map& map, const Tiles::Place& place, std::int64_t chunk, float* v,
                           std::int64_t distance, std::int64_t plane) const {
    Window<tile, const float>(x_, corner(place, 0), dilation_, 0, x_.c, zeros_.data())
        .read(map, [&](const auto& pixel, std::int64_t c) {
          transform_input(pixel, v + c / chunk * distance + c % chunk, plane);
        });
  }

 private:
  /// Channel `channel` of a pixel under a part, relative to the first pixel under part 0.
  struct PartChannel {
    std::int64_t h, w, offset, channel;
  };
  struct Gathered {
    const float* pixels;
    V read(int i, int j) const { return simd::load<V>(pixels + (i * tile + j) * lanes); }
    void prefetch(int, int) const {}
  };

  /// Whether a vector takes several parts at once, since the channels of one would leave most of it empty.
  bool gathers() const { return parts_.count > 1 && 2 * x_.c <= lanes; }

  Tiles::Place corner(const Tiles::Place& place, std::int64_t part) const {
    return {place.n, place.h - padding_ + dilation_ * parts_.begin(part / parts_.across),
            place.w - padding_ + dilation_ * parts_.begin(part % parts_.across)};
  }

  template <class Map, class Factor>
  void gather(const Map& map, const Tiles::Place& first, std::int64_t begin, std::int64_t count, Factor* v,
              std::int64_t plane) const {
    const float* const image = x_.data + first.n * x_.h * x_.w * x_.c;
    const std::int64_t reach = dilation_ * (tile - 1 + parts_.kernel - 3);
    const bool inside = first.h >= 0 && first.w >= 0 && first.h + reach < x_.h && first.w + reach < x_.w;
    for (std::int64_t k = 0; k < count; k += lanes) {
      const PartChannel* const taps = taps_.data() + begin + k;
      const std::int64_t some = std::min(lanes, count - k);
      float pixels[planes * lanes]{};
      for (int p = 0; p < planes; ++p) {
        const std::int64_t h = first.h + p / tile * dilation_, w = first.w + p % tile * dilation_;
        const std::int64_t corner = (h * x_.w + w) * x_.c;
        for (std::int64_t l = 0; l < some; ++l) {
          const std::int64_t row = h + taps[l].h, column = w + taps[l].w;
          if (!inside && (row < 0 || row >= x_.h || column < 0 || column >= x_.w)) continue;
          const float* const address = image + (corner + taps[l].offset);
          pixels[p * lanes + l] = map.template at<float>(taps[l].channel)(*address, address);
        }
      }
      transform_input(Gathered{pixels}, v + k, plane);
    }
  }

  Images<const float> x_;
  FilterParts parts_;
  std::int64_t padding_, dilation_;
  Scratch<float> zeros_;
  Scratch<PartChannel> taps_;
};

}}}  // namespace strata::STRATA_ABI::cpu::winograd
