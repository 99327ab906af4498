// The pixels of PNG files that are not usual: 1, 2 and 4 bits, palettes, transparent colours, interlaced ones.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"
#include "strata/data/detail/png.hpp"
#include "strata/data/detail/png_pixels.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Makes pixels of the file's samples.
class PngPalette {
 public:
  /// Keeps what it needs of the file's bytes.
  explicit PngPalette(const PngStructure& png)
      : depth_(std::size_t(png.depth)), samples_(std::size_t(png.samples())), channels_(std::size_t(png.info.channels)),
        indexed_(png.colour == 3), has_key_(png.has_key && png.colour != 3), colours_(png.palette.size() / 3) {
    for (std::size_t i = 0; indexed_ && i < colours_; ++i) {
      std::array<unsigned char, 4>& entry = entries_[i];
      std::copy_n(png.palette.begin() + std::ptrdiff_t(3 * i), 3, entry.begin());
      entry[3] = i < png.key.size() ? png.key[i] : 255;
    }
    for (std::size_t c = 0; has_key_ && c < samples_; ++c)
      key_[c] = big_endian(png.key.subspan(2 * c, 2)) & ((1u << depth_) - 1);
  }

  /// Pixel x of a row. Samples of 16 bits stay as they are in the file.
  void put(const unsigned char* row, std::size_t x, unsigned char* out) const {
    if (depth_ >= 8) {
      const std::size_t bytes = depth_ / 8, size = samples_ * bytes;
      const unsigned char* const at = row + x * size;
      if (indexed_) return put_colour(*at, out);
      std::copy_n(at, size, out);
      if (!has_key_) return;
      bool transparent = true;
      for (std::size_t c = 0; c < samples_; ++c)
        transparent = transparent && (bytes == 1 ? at[c] : std::uint32_t(at[2 * c] << 8 | at[2 * c + 1])) == key_[c];
      std::fill_n(out + size, bytes, static_cast<unsigned char>(transparent ? 0 : 255));
      return;
    }
    const std::size_t bit = x * depth_;
    const std::uint32_t most = (1u << depth_) - 1, value = std::uint32_t(row[bit / 8]) >> (8 - depth_ - bit % 8) & most;
    if (indexed_) return put_colour(value, out);
    out[0] = static_cast<unsigned char>(value * (255 / most));
    if (has_key_) out[1] = static_cast<unsigned char>(value == key_[0] ? 0 : 255);
  }

 private:
  void put_colour(std::size_t index, unsigned char* out) const {
    if (index >= colours_) throw BadImage("it is damaged: a PNG pixel is outside the palette");
    std::copy_n(entries_[index].begin(), channels_, out);  // of a grey palette the first, and no alpha
  }

  std::size_t depth_, samples_, channels_;
  bool indexed_, has_key_;
  std::size_t colours_;
  std::array<std::array<unsigned char, 4>, 256> entries_{};
  std::array<std::uint32_t, 3> key_{};
};

/// Decodes any file whose structure has been read whole. Throws BadImage.
inline DecodedImage decode_rare_png(std::vector<unsigned char> file, const PngStructure& png) {
  struct Pass {
    std::int64_t x, y, dx, dy;
  };
  constexpr std::array<Pass, 7> adam7{
      {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}};
  const std::vector<Pass> passes =
      png.interlaced ? std::vector<Pass>(adam7.begin(), adam7.end()) : std::vector<Pass>{{0, 0, 1, 1}};
  const ImageInfo info = as_stored(png.info);
  const auto extent = [](std::int64_t size, std::int64_t from, std::int64_t step) {
    return size <= from ? 0 : (size - from + step - 1) / step;
  };
  std::size_t filtered_size = 0;
  for (const Pass& pass : passes) {
    const std::int64_t w = extent(info.w, pass.x, pass.dx), h = extent(info.h, pass.y, pass.dy);
    if (w > 0) filtered_size += std::size_t(h) * (png.row_bytes(w) + 1);
  }
  const PngPalette palette(png);  // before its bytes move
  const std::size_t size = gather_png_pixels(file);
  std::vector<unsigned char> filtered(filtered_size + inflate_padding);
  inflate_zlib(file.data(), size, filtered.data(), filtered_size);
  std::vector<unsigned char>().swap(file);

  const std::size_t pixel = std::size_t(info.channels) * std::size_t(info.bits / 8);
  const std::size_t step = std::max<std::size_t>(1, std::size_t(png.samples() * png.depth) / 8);
  DecodedImage image{info, info.w, std::vector<unsigned char>(std::size_t(info.w) * std::size_t(info.h) * pixel)};
  unsigned char* rows = filtered.data();
  for (const Pass& pass : passes) {
    const std::int64_t w = extent(info.w, pass.x, pass.dx), h = extent(info.h, pass.y, pass.dy);
    if (w == 0 || h == 0) continue;
    const std::size_t row_bytes = png.row_bytes(w);
    png_unfilter(step, rows, std::size_t(h), row_bytes, row_bytes, rows);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x)
        palette.put(rows + std::size_t(y) * row_bytes, std::size_t(x),
                    image.samples.data() + std::size_t((pass.y + y * pass.dy) * info.w + pass.x + x * pass.dx) * pixel);
    rows += std::size_t(h) * (row_bytes + 1);
  }
  if (info.bits == 16) swap_big_endian(image.samples);
  return image;
}

}}}  // namespace strata::STRATA_ABI::detail
