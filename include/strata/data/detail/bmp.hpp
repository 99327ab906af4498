// Windows bitmap files: reads uncompressed ones of 1, 4, 8, 24 and 32 bits a pixel, writes 8 (grey palette) and 24.
// The fourth byte of a 32-bit pixel is ignored: what it means is not agreed on.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

struct BmpLayout {
  ImageInfo info;
  int pixel_bits = 0;
  bool top_down = false;
  std::size_t row_bytes = 0;  // rows are padded to four bytes
  std::size_t pixels_at = 0;
  std::vector<std::array<unsigned char, 3>> palette;  // RGB
};

inline BmpLayout read_bmp_structure(Bytes file) {
  const Bytes header = part(file, 0, 54, "the BMP header");
  const std::uint32_t header_size = little_endian(header.subspan(14, 4));
  const std::uint32_t compression = little_endian(header.subspan(30, 4));
  BmpLayout layout;
  layout.info.format = ImageFormat::bmp;
  layout.pixels_at = little_endian(header.subspan(10, 4));
  layout.info.w = std::int32_t(little_endian(header.subspan(18, 4)));
  layout.info.h = std::int32_t(little_endian(header.subspan(22, 4)));
  layout.top_down = layout.info.h < 0;
  if (layout.top_down) layout.info.h = -layout.info.h;
  layout.pixel_bits = int(little_endian(header.subspan(28, 2)));
  const int bits = layout.pixel_bits;
  if (header_size < 40 || header_size > 124 || layout.info.w < 0)
    throw BadImage("its BMP header is invalid or too old");
  bool usual_masks = false;  // of a 32-bit file: blue, green, red from the lowest byte up
  if (compression == 3 && bits == 32) {
    const Bytes masks = part(file, 54, 12, "the BMP header");
    usual_masks = little_endian(masks.subspan(0, 4)) == 0xFF0000u && little_endian(masks.subspan(4, 4)) == 0xFF00u &&
                  little_endian(masks.subspan(8, 4)) == 0xFFu;
  }
  if ((compression != 0 && !usual_masks) || (bits != 1 && bits != 4 && bits != 8 && bits != 24 && bits != 32))
    throw BadImage(concat("it is a BMP of ", bits, " bits a pixel, compression ", compression,
                          "; supported are 1, 4, 8, 24 and 32 bits without compression: convert it to PNG"));
  layout.info.channels = 3;
  if (bits <= 8) {
    const std::uint32_t used = little_endian(header.subspan(46, 4));
    const std::uint32_t colours = used == 0 ? 1u << bits : used;
    if (colours > 256) throw BadImage("its BMP palette is too long");
    const Bytes entries = part(file, 14 + header_size, std::size_t(colours) * 4, "the BMP palette");
    bool grey = true;
    for (std::size_t i = 0; i < entries.size(); i += 4) {
      layout.palette.push_back({entries[i + 2], entries[i + 1], entries[i]});
      grey = grey && entries[i] == entries[i + 1] && entries[i] == entries[i + 2];
    }
    if (grey) layout.info.channels = 1;
  }
  layout.row_bytes = (std::size_t(layout.info.w) * std::size_t(bits) + 31) / 32 * 4;
  if (layout.pixels_at < std::size_t{14} + header_size)
    throw BadImage("it is damaged: its BMP pixels lie inside the header");
  return layout;
}

/// Takes no memory for pixels before the file is known to have them.
inline DecodedImage decode_bmp(Bytes file, const BmpLayout& layout) {
  const std::size_t w = std::size_t(layout.info.w), h = std::size_t(layout.info.h);
  const Bytes rows =
      part(file, layout.pixels_at, h > file.size() / layout.row_bytes ? file.size() : layout.row_bytes * h,
           "the BMP image data");
  const std::size_t channels = std::size_t(layout.info.channels);
  DecodedImage image{layout.info, layout.info.w, std::vector<unsigned char>(w * h * channels)};
  unsigned char* out = image.samples.data();
  for (std::size_t y = 0; y < h; ++y) {
    const unsigned char* row = rows.data() + (layout.top_down ? y : h - 1 - y) * layout.row_bytes;
    for (std::size_t x = 0; x < w; ++x, out += channels) {
      if (layout.palette.empty()) {
        const unsigned char* pixel = row + x * std::size_t(layout.pixel_bits / 8);
        for (std::size_t c = 0; c < 3; ++c) out[c] = pixel[2 - c];
        continue;
      }
      const std::size_t bit = x * std::size_t(layout.pixel_bits);
      const std::size_t index = (std::size_t(row[bit / 8]) >> (8 - std::size_t(layout.pixel_bits) - bit % 8)) &
                                ((1u << layout.pixel_bits) - 1);
      if (index >= layout.palette.size()) throw BadImage("it is damaged: a BMP pixel is outside the palette");
      std::copy_n(layout.palette[index].begin(), channels, out);
    }
  }
  return image;
}

/// A BMP file of h rows of w pixels of 1 or 3 channels, 8 bits each.
inline std::vector<unsigned char> encode_bmp(Bytes samples, std::int64_t w, std::int64_t h, int channels) {
  const std::size_t row_bytes = (std::size_t(w) * std::size_t(channels) + 3) / 4 * 4;
  const std::size_t palette_bytes = channels == 1 ? 1024 : 0;
  const std::size_t size = 54 + palette_bytes + row_bytes * std::size_t(h);
  if (size > 0x7FFFFFFFu || w > 0x7FFFFFFF || h > 0x7FFFFFFF)
    throw BadImage(concat(w, "x", h, " pixels are too many for one BMP file"));
  std::vector<unsigned char> out(size, 0);
  const auto put = [&](std::size_t at, std::size_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out[at + std::size_t(i)] = static_cast<unsigned char>(value >> (8 * i));
  };
  out[0] = 'B';
  out[1] = 'M';
  put(2, size, 4);
  put(10, 54 + palette_bytes, 4);
  put(14, 40, 4);
  put(18, std::size_t(w), 4);
  put(22, std::size_t(h), 4);
  put(26, 1, 2);
  put(28, std::size_t(channels) * 8, 2);
  put(34, row_bytes * std::size_t(h), 4);
  for (std::size_t i = 0; i < palette_bytes / 4; ++i) put(54 + 4 * i, i * 0x010101u, 3);
  for (std::size_t y = 0; y < std::size_t(h); ++y) {
    unsigned char* row = out.data() + 54 + palette_bytes + (std::size_t(h) - 1 - y) * row_bytes;
    const unsigned char* from = samples.data() + y * std::size_t(w) * std::size_t(channels);
    for (std::size_t x = 0; x < std::size_t(w); ++x)
      for (std::size_t c = 0; c < std::size_t(channels); ++c)
        row[x * std::size_t(channels) + c] = from[x * std::size_t(channels) + std::size_t(channels) - 1 - c];
  }
  return out;
}

}}}  // namespace strata::STRATA_ABI::detail
