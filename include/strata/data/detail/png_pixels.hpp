// The pixels of the usual PNG files (8 bits a sample, neither a palette nor interlaced) without stb, several times faster:
// training that reads its images anew for every sample spends most of its time here.
//
//     std::optional<DecodedImage> image = decode_usual_png(file, info);      // none: the file is of another kind
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"
#include "strata/data/detail/png.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Undoes PNG's filter of one row in place; `above` is the row before it, zeros for the first. Step: bytes a pixel.
template <std::size_t Step>
void png_unfilter(int type, unsigned char* row, const unsigned char* above, std::size_t size) {
  const auto byte = [](int value) { return static_cast<unsigned char>(value); };
  if (type == 1) {
    for (std::size_t i = Step; i < size; ++i) row[i] = byte(row[i] + row[i - Step]);
  } else if (type == 2) {
    for (std::size_t i = 0; i < size; ++i) row[i] = byte(row[i] + above[i]);
  } else if (type == 3) {
    int left[Step] = {};
    for (std::size_t i = 0; i < size; i += Step)
      for (std::size_t c = 0; c < Step; ++c) row[i + c] = byte(left[c] = (row[i + c] + (left[c] + above[i + c]) / 2) & 255);
  } else if (type == 4) {
    // The guess is whichever of a (left), b (above) and c (above the left one) is nearest to a + b - c. Only a waits for the
    // pixel before, so what a is compared with is made ready beforehand. With d = b - c >= 0 it is a when a >= b or
    // a <= c - 2 d, else b when 2 a >= 2 c - d, else c; with d < 0 all inequalities turn round.
    int left[Step] = {}, corner[Step] = {};
    for (std::size_t i = 0; i < size; i += Step)
      for (std::size_t c = 0; c < Step; ++c) {
        // No branches, since they could not be predicted. With d < 0 both sides change their signs.
        const int b = above[i + c], d = b - corner[c], negative = d >> 31, distance = (d ^ negative) - negative;
        const int q = ((left[c] - corner[c]) ^ negative) - negative;
        const bool takes_left = (q >= distance) | (q <= -2 * distance), takes_above = 2 * q >= -distance;
        int guess = corner[c] + (d & -int(takes_above));
        guess += (left[c] - guess) & -int(takes_left);
        left[c] = (row[i + c] + guess) & 255;
        corner[c] = b;
        row[i + c] = byte(left[c]);
      }
  }
}

template <std::size_t Step>
void png_unfilter_rows(const unsigned char* filtered, std::size_t h, std::size_t row_bytes, unsigned char* out) {
  const std::vector<unsigned char> zeros(row_bytes);
  const unsigned char* above = zeros.data();
  for (std::size_t y = 0; y < h; ++y, filtered += row_bytes + 1, out += row_bytes) {
    if (filtered[0] > 4) throw BadImage("it is damaged: a row has an unknown filter");
    std::memcpy(out, filtered + 1, row_bytes);
    png_unfilter<Step>(filtered[0], out, above, row_bytes);
    above = out;
  }
}

/// Decodes a file whose chunks read_png_structure has found whole and undamaged. None when it has a palette, another number
/// of bits, transparency in a chunk of its own, or is interlaced. Throws BadImage.
inline std::optional<DecodedImage> decode_usual_png(Bytes file, const ImageInfo& info) {
  std::vector<unsigned char> data;
  data.reserve(file.size() + inflate_padding);
  for (std::size_t at = png_signature.size();;) {
    const std::size_t length = big_endian(file.subspan(at, 4));
    const Bytes type = file.subspan(at + 4, 4), body = file.subspan(at + 8, length);
    const auto is = [&](const char* name) { return std::memcmp(type.data(), name, 4) == 0; };
    if (is("IHDR") && (body[8] != 8 || body[9] == 3 || body[12] != 0)) return std::nullopt;
    if (is("tRNS")) return std::nullopt;
    if (is("IDAT")) data.insert(data.end(), body.begin(), body.end());
    if (is("IEND")) break;
    at += std::size_t{12} + length;
  }
  const std::size_t size = data.size();
  data.resize(size + inflate_padding);

  const auto h = std::size_t(info.h), row_bytes = std::size_t(info.w) * std::size_t(info.channels);
  const std::unique_ptr<unsigned char, FreeMemory> filtered(
      static_cast<unsigned char*>(std::malloc((row_bytes + 1) * h + inflate_padding)));
  DecodedImage image{info, info.channels, std::unique_ptr<void, FreeMemory>(std::malloc(row_bytes * h))};
  if (!filtered || !image.samples) throw std::bad_alloc();
  inflate_zlib(data.data(), size, filtered.get(), (row_bytes + 1) * h);
  auto* out = static_cast<unsigned char*>(image.samples.get());
  switch (info.channels) {
    case 1: png_unfilter_rows<1>(filtered.get(), h, row_bytes, out); break;
    case 2: png_unfilter_rows<2>(filtered.get(), h, row_bytes, out); break;
    case 3: png_unfilter_rows<3>(filtered.get(), h, row_bytes, out); break;
    default: png_unfilter_rows<4>(filtered.get(), h, row_bytes, out); break;
  }
  return image;
}

}  // namespace strata::inline STRATA_ABI::detail
