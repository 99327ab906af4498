// The pixels of the usual PNG files (8 or 16 bits a sample, neither a palette nor interlaced), several times faster
// than by stb_image: training that reads its images anew for every sample spends most of its time here. It takes no
// more memory than the file and the pixels.
//
//     if (png.usual()) DecodedImage image = decode_usual_png(std::move(file), as_stored(png.info), info.h, info.w);
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "strata/core/simd.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"
#include "strata/data/detail/png.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

typedef unsigned char Sixteen __attribute__((vector_size(16)));

/// Element j of row i becomes element i of row j.
[[gnu::always_inline]] inline void transpose(Sixteen (&rows)[16]) {
  // Each round puts the rows of the upper half between those of the lower one: four of them exchange i and j.
  simd::unroll<4>([&](auto) STRATA_INLINED {
    Sixteen mixed[16];
    simd::unroll<8>([&](auto i) STRATA_INLINED {
      mixed[2 * i] =
          __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      mixed[2 * i + 1] =
          __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    });
    simd::unroll<16>([&](auto i) STRATA_INLINED { rows[i] = mixed[i]; });
  });
}

[[gnu::always_inline]] inline Sixteen smaller(Sixteen a, Sixteen b) { return a < b ? a : b; }
/// The difference of each pair, without its sign.
[[gnu::always_inline]] inline Sixteen distance(Sixteen a, Sixteen b) { return (a > b ? a : b) - smaller(a, b); }
/// All ones where a <= b. In this form a register of masks takes no part, which a value would pass through slowly.
[[gnu::always_inline]] inline Sixteen at_most(Sixteen a, Sixteen b) { return Sixteen(smaller(a, b) == a); }
[[gnu::always_inline]] inline Sixteen select(Sixteen mask, Sixteen yes, Sixteen no) {
  return (yes & mask) | (no & ~mask);
}

/// As png_unfilter; Step is the bytes of a pixel where they are known to the compiler, or 0.
template <std::size_t Step>
[[gnu::noinline]] void png_unfilter_by(std::size_t bytes, const unsigned char* filtered, std::size_t h,
                                       std::size_t row_bytes, std::size_t wanted, unsigned char* out) {
  constexpr std::size_t vectors = 2, rows = 16 * vectors, most = Step > 0 ? Step : 8;
  const std::size_t step = Step > 0 ? Step : bytes, skew = (rows - 1) * step;  // of the last row
  const std::size_t columns = wanted + skew, line = (columns + 15) / 16 * 16 + skew;
  std::vector<unsigned char> lines(rows * line);  // byte i of row r at skew + i
  std::vector<unsigned char> above(columns + 16);
  Sixteen numbers[vectors];  // of the rows
  for (std::size_t r = 0; r < rows; ++r) numbers[r / 16][r % 16] = static_cast<unsigned char>(r);
  for (std::size_t first = 0; first < h; first += rows) {
    const std::size_t count = std::min(rows, h - first);
    Sixteen filter_of[4][vectors] = {};  // all ones in the rows of left, above, mean and Paeth
    const unsigned char* source[rows];
    for (std::size_t r = count; r < rows; ++r) source[r] = filtered;  // anything will do
    for (std::size_t r = 0; r < count; ++r) {
      const unsigned char* row = filtered + (first + r) * (row_bytes + 1);
      if (row[0] > 4) throw BadImage("it is damaged: a row has an unknown filter");
      if (row[0] > 0) filter_of[row[0] - 1][r / 16][r % 16] = 255;
      source[r] = row + 1 - r * step;
    }
    Sixteen last[most][vectors] = {}, corner[most][vectors] = {};  // the pixels to the left, and those above them
    std::size_t n = 0;                                             // the byte of the pixel
    for (std::size_t at = 0; at < columns; at += 16) {
      Sixteen block[vectors][16];
      simd::unroll<vectors>([&](auto v) STRATA_INLINED {
        simd::unroll<16>([&](auto r) STRATA_INLINED { std::memcpy(&block[v][r], source[16 * v + r] + at, 16); });
        transpose(block[v]);
        if (at / step < rows)  // zeros before the first pixel
          for (std::size_t i = 0; i < 16; ++i) {
            const auto column = static_cast<unsigned char>((at + i) / step);
            block[v][i] &= at_most(numbers[v], Sixteen{} + column);
          }
      });
      for (std::size_t i = 0; i < 16; ++i) {
        Sixteen a[vectors], b[vectors];
        simd::unroll<vectors>([&](auto v) STRATA_INLINED { a[v] = last[n][v]; });
        simd::unroll<vectors>([&](auto v) STRATA_INLINED {
          const Sixteen before = v == 0 ? Sixteen{} + above[at + i] : a[v == 0 ? 0 : v - 1];
          b[v] = __builtin_shufflevector(before, a[v], 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30);
        });
        simd::unroll<vectors>([&](auto v) STRATA_INLINED {
          // Paeth: whichever of a, b, c is nearest to a + b - c; a before b before c. Where c is not between a and b,
          // that is a or b; where it is, c's distance is the difference of the other two.
          const Sixteen c = corner[n][v], far_a = distance(b[v], c), far_b = distance(a[v], c);
          const Sixteen far_c = distance(far_a, far_b) | ~(at_most(a[v], c) ^ at_most(b[v], c));
          const Sixteen nearest =
              select(at_most(far_a, smaller(far_b, far_c)), a[v], select(at_most(far_b, far_c), b[v], c));
          const Sixteen mean = (a[v] & b[v]) + ((a[v] ^ b[v]) >> 1);
          const Sixteen others = (a[v] & filter_of[0][v]) | (b[v] & filter_of[1][v]) | (mean & filter_of[2][v]);
          block[v][i] += others | (nearest & filter_of[3][v]);
          last[n][v] = block[v][i];
          corner[n][v] = b[v];
        });
        n = n + 1 == step ? 0 : n + 1;
      }
      simd::unroll<vectors>([&](auto v) STRATA_INLINED {
        transpose(block[v]);
        simd::unroll<16>([&](auto r) STRATA_INLINED {
          std::memcpy(lines.data() + (16 * v + r) * line + skew + at - (16 * v + r) * step, &block[v][r], 16);
        });
      });
    }
    for (std::size_t r = 0; r < count; ++r, out += wanted) std::memcpy(out, lines.data() + r * line + skew, wanted);
    std::memcpy(above.data(), out - wanted, wanted);
  }
}

/// The same row by row, for pictures whose rows are so long that the memory of many of them counts.
inline void png_unfilter_rows(std::size_t step, const unsigned char* filtered, std::size_t h, std::size_t row_bytes,
                              std::size_t wanted, unsigned char* out) {
  const unsigned char* above = nullptr;
  for (std::size_t y = 0; y < h; ++y, filtered += row_bytes + 1, out += wanted) {
    const int filter = filtered[0];
    if (filter > 4) throw BadImage("it is damaged: a row has an unknown filter");
    const unsigned char* const row = filtered + 1;
    for (std::size_t i = 0; i < wanted; ++i) {
      const int a = i >= step ? out[i - step] : 0, b = above ? above[i] : 0,
                c = above && i >= step ? above[i - step] : 0;
      const int to_a = std::abs(b - c), to_b = std::abs(a - c), to_c = std::abs(a + b - 2 * c);
      const int nearest = to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
      const int guess = filter == 0 ? 0 : filter == 1 ? a : filter == 2 ? b : filter == 3 ? (a + b) / 2 : nearest;
      out[i] = static_cast<unsigned char>(row[i] + guess);
    }
    above = out;
  }
}

/// Undoes PNG's filters in the first `wanted` bytes (whole pixels) of each row. `filtered` has h rows, each the byte of
/// its filter type and row_bytes bytes, and inflate_padding bytes behind them; `out` has h rows of `wanted` bytes.
/// `step` is the bytes of a pixel, at most 8. A pixel waits for its left neighbour, so one row alone cannot use
/// vectors: here many rows go side by side, each a pixel behind the one above it, from which it takes what it needs.
/// Two vectors of them, since an operation has to wait for the one before it. `out` may be `filtered`: what is written
/// lies before what is still to be read.
inline void png_unfilter(std::size_t step, const unsigned char* filtered, std::size_t h, std::size_t row_bytes,
                         std::size_t wanted, unsigned char* out) {
  if (wanted > (std::size_t{1} << 17) && h < 256) return png_unfilter_rows(step, filtered, h, row_bytes, wanted, out);
  switch (step) {
    case 1: return png_unfilter_by<1>(step, filtered, h, row_bytes, wanted, out);
    case 3: return png_unfilter_by<3>(step, filtered, h, row_bytes, wanted, out);
    default: return png_unfilter_by<0>(step, filtered, h, row_bytes, wanted, out);
  }
}

/// Puts the compressed pixels of a file, whose chunks read_png_structure has found whole, together at its beginning,
/// with inflate_padding behind them. Returns their size.
inline std::size_t gather_png_pixels(std::vector<unsigned char>& file) {
  std::size_t size = 0;
  for (std::size_t at = png_signature.size();;) {
    const std::size_t length = big_endian(Bytes(file).subspan(at, 4));
    const unsigned char* const type = file.data() + at + 4;
    if (std::memcmp(type, "IEND", 4) == 0) break;
    if (std::memcmp(type, "IDAT", 4) == 0) {
      std::memmove(file.data() + size, type + 4, length);
      size += length;
    }
    at += std::size_t{12} + length;
  }
  file.resize(size);
  file.resize(size + inflate_padding);
  return size;
}

/// Decodes a usual file, in its own memory as far as that goes. Only the first `rows` rows and `columns` columns are
/// decoded. Throws BadImage.
inline DecodedImage decode_usual_png(std::vector<unsigned char> file, const ImageInfo& info, std::int64_t rows,
                                     std::int64_t columns) {
  const std::size_t size = gather_png_pixels(file);
  const auto h = std::size_t(std::min(rows, info.h)), step = std::size_t(info.channels) * std::size_t(info.bits / 8);
  const std::int64_t w = std::min(columns, info.w);
  const std::size_t row_bytes = std::size_t(info.w) * step, wanted = std::size_t(w) * step;
  DecodedImage image{info, w, std::vector<unsigned char>((row_bytes + 1) * h + inflate_padding)};
  unsigned char* const pixels = image.samples.data();
  inflate_zlib(file.data(), size, pixels, (row_bytes + 1) * h, rows < info.h);
  png_unfilter(step, pixels, h, row_bytes, wanted, pixels);
  image.samples.resize(wanted * h);
  if (info.bits == 16) swap_big_endian(image.samples);
  return image;
}

}}}  // namespace strata::STRATA_ABI::detail
