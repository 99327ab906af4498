// The pixels of the usual PNG files (8 or 16 bits a sample, neither a palette nor interlaced) without stb, several times
// faster: training that reads its images anew for every sample spends most of its time here. It takes no more memory than
// the file and the pixels.
//
//     if (is_usual_png(file)) DecodedImage image = decode_usual_png(std::move(file), info, info.h);
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"
#include "strata/data/detail/png.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Undoes PNG's filters. `filtered` has h rows, each the byte of its filter type and row_bytes bytes; Step is the bytes of
/// a pixel. A pixel waits for its left neighbour, so one row alone cannot use vectors: here sixteen rows go side by side,
/// each a pixel behind the one above it, from which it takes what it needs. `out` may be `filtered`: what is written lies
/// before what is still to be read.
template <std::size_t Step>
void png_unfilter(const unsigned char* filtered, std::size_t h, std::size_t row_bytes, unsigned char* out) {
  constexpr std::size_t rows = 16;
  typedef std::int16_t Words __attribute__((vector_size(2 * rows)));
  typedef unsigned char Bytes16 __attribute__((vector_size(rows)));
  const std::size_t w = row_bytes / Step;
  std::vector<unsigned char> skewed((w + rows) * Step * rows);  // [pixel of the first row][byte of the pixel][row]
  const std::vector<unsigned char> zeros(row_bytes);
  const unsigned char* above = zeros.data();
  for (std::size_t first = 0; first < h; first += rows) {
    const std::size_t count = std::min(rows, h - first);
    Words is_left{}, is_above{}, is_mean{}, is_paeth{};  // all ones in the rows of that filter
    std::fill(skewed.begin(), skewed.end(), static_cast<unsigned char>(0));
    for (std::size_t r = 0; r < count; ++r) {
      const unsigned char* row = filtered + (first + r) * (row_bytes + 1);
      if (row[0] > 4) throw BadImage("it is damaged: a row has an unknown filter");
      if (row[0] > 0) (*std::array{&is_left, &is_above, &is_mean, &is_paeth}[row[0] - 1])[r] = -1;
      unsigned char* to = skewed.data() + r * Step * rows + r;
      for (std::size_t i = 0; i < row_bytes; ++i) to[i * rows] = row[i + 1];
    }
    Words last[Step] = {}, corner[Step] = {};  // the pixels to the left, and those above them
    unsigned char* at = skewed.data();
    for (std::size_t x = 0; x < w + count - 1; ++x)
      for (std::size_t n = 0; n < Step; ++n, at += rows) {
        const Words a = last[n], c = corner[n];
        const Words from_above = {std::int16_t(x < w ? above[x * Step + n] : 0)};
        const Words b =
            __builtin_shufflevector(a, from_above, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
        // Paeth: whichever of a, b, c is nearest to a + b - c; a before b before c.
        const Words p = b - c, q = a - c, sum = p + q;
        const Words far_a = p < 0 ? -p : p, far_b = q < 0 ? -q : q, far_c = sum < 0 ? -sum : sum;
        const Words b_or_c = far_b <= far_c ? b : c;
        const Words nearest = ((far_a <= far_b) & (far_a <= far_c)) ? a : b_or_c;
        const Words guess = (a & is_left) | (b & is_above) | (((a + b) >> 1) & is_mean) | (nearest & is_paeth);
        Bytes16 bytes;
        std::memcpy(&bytes, at, rows);
        const Words sample = (__builtin_convertvector(bytes, Words) + guess) & 255;
        bytes = __builtin_convertvector(sample, Bytes16);
        std::memcpy(at, &bytes, rows);
        last[n] = sample;
        corner[n] = b;
      }
    for (std::size_t r = 0; r < count; ++r, out += row_bytes) {
      const unsigned char* from = skewed.data() + r * Step * rows + r;
      for (std::size_t i = 0; i < row_bytes; ++i) out[i] = from[i * rows];
    }
    above = out - row_bytes;
  }
}

/// Whether decode_usual_png takes a file whose chunks read_png_structure has found whole and undamaged: not with fewer bits,
/// a palette, transparency in a chunk of its own, or interlaced.
inline bool is_usual_png(Bytes file) {
  for (std::size_t at = png_signature.size();;) {
    const std::size_t length = big_endian(file.subspan(at, 4));
    const Bytes type = file.subspan(at + 4, 4), body = file.subspan(at + 8, length);
    const auto is = [&](const char* name) { return std::memcmp(type.data(), name, 4) == 0; };
    if (is("IHDR") && (body[8] < 8 || body[9] == 3 || body[12] != 0)) return false;
    if (is("tRNS")) return false;
    if (is("IEND")) return true;
    at += std::size_t{12} + length;
  }
}

/// Decodes such a file, in its own memory as far as that goes. Only the first `rows` rows are decoded. Throws BadImage.
inline DecodedImage decode_usual_png(std::vector<unsigned char> file, const ImageInfo& info, std::int64_t rows) {
  std::size_t size = 0;  // of the compressed data, whose parts are put together at the file's beginning
  for (std::size_t at = png_signature.size();;) {
    const std::size_t length = big_endian(Bytes(file).subspan(at, 4));
    const unsigned char* type = file.data() + at + 4;
    if (std::memcmp(type, "IEND", 4) == 0) break;
    if (std::memcmp(type, "IDAT", 4) == 0) {
      std::memmove(file.data() + size, type + 4, length);
      size += length;
    }
    at += std::size_t{12} + length;
  }
  file.resize(size);
  file.resize(size + inflate_padding);

  const auto h = std::size_t(std::min(rows, info.h)), step = std::size_t(info.channels) * std::size_t(info.bits / 8);
  const std::size_t row_bytes = std::size_t(info.w) * step;
  DecodedImage image{info, info.channels, std::vector<unsigned char>((row_bytes + 1) * h + inflate_padding)};
  unsigned char* pixels = image.own.data();
  inflate_zlib(file.data(), size, pixels, (row_bytes + 1) * h, rows < info.h);
  switch (step) {
    case 1: png_unfilter<1>(pixels, h, row_bytes, pixels); break;
    case 2: png_unfilter<2>(pixels, h, row_bytes, pixels); break;
    case 3: png_unfilter<3>(pixels, h, row_bytes, pixels); break;
    case 4: png_unfilter<4>(pixels, h, row_bytes, pixels); break;
    case 6: png_unfilter<6>(pixels, h, row_bytes, pixels); break;
    default: png_unfilter<8>(pixels, h, row_bytes, pixels); break;
  }
  image.own.resize(row_bytes * h);
  if (info.bits == 16) swap_big_endian(image.own);
  return image;
}

}  // namespace strata::inline STRATA_ABI::detail
