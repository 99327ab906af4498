// The container of PNG files (ISO/IEC 15948): reads headers, and checks that a file is whole, undamaged and understood.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/crc32.hpp"
#include "strata/data/detail/exif.hpp"
#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline constexpr std::array<unsigned char, 8> png_signature{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

struct PngStructure {
  ImageInfo info;
  int depth = 8, colour = 0;  // bits a sample; 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha
  bool interlaced = false;
  bool has_key = false;       // tRNS
  Bytes palette, key;         // PLTE's colours and tRNS's levels of alpha, or the colour that is transparent
  std::size_t compressed = 0; // bytes of pixels
  std::vector<Bytes> colour_chunks;  // whole ones that say what the samples mean: cHRM, gAMA, sRGB, cICP, mDCV, cLLI
  Bytes icc, density;                // what is in iCCP and pHYs

  /// Samples a pixel in the file.
  int samples() const { return colour == 0 || colour == 3 ? 1 : colour == 4 ? 2 : colour == 2 ? 3 : 4; }
  std::size_t row_bytes(std::int64_t w) const { return (std::size_t(w) * std::size_t(samples() * depth) + 7) / 8; }
  /// 8 or 16 bits a sample, neither a palette, nor a transparent colour, nor interlaced.
  bool usual() const { return depth >= 8 && colour != 3 && !has_key && !interlaced; }
};

inline PngStructure png_header(Bytes header) {
  const int bits = header[8], colour = header[9];
  const bool fits = colour == 0   ? bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16
                    : colour == 3 ? bits == 1 || bits == 2 || bits == 4 || bits == 8
                                  : (colour == 2 || colour == 4 || colour == 6) && (bits == 8 || bits == 16);
  if (!fits || header[10] != 0 || header[11] != 0 || header[12] > 1)
    throw BadImage(concat("its PNG header is invalid (", bits, " bits, colour type ", colour, ")"));
  PngStructure png;
  png.depth = bits, png.colour = colour, png.interlaced = header[12] == 1;
  png.info.format = ImageFormat::png;
  png.info.w = big_endian(header.subspan(0, 4));
  png.info.h = big_endian(header.subspan(4, 4));
  png.info.bits = bits == 16 ? 16 : 8;
  png.info.channels = colour == 0 ? 1 : colour == 4 ? 2 : colour == 6 ? 4 : 3;
  return png;
}

/// What tRNS, PLTE and their like make of the picture that the header describes.
inline void read_png_chunk(PngStructure& png, const std::string& name, Bytes body, Bytes chunk) {
  if (name == "PLTE") {
    if (!png.palette.empty() || png.has_key || body.empty() || body.size() % 3 != 0 || body.size() > 768)
      throw BadImage("it is damaged: its PNG palette is impossible");
    png.palette = body;
    bool grey = png.colour == 3;
    for (std::size_t i = 0; i < body.size(); i += 3) grey = grey && body[i] == body[i + 1] && body[i] == body[i + 2];
    if (grey) png.info.channels = 1;
  } else if (name == "tRNS") {
    const std::size_t size = body.size();
    if (png.has_key || png.colour >= 4 || (png.colour == 0 && size != 2) || (png.colour == 2 && size != 6) ||
        (png.colour == 3 && (size == 0 || size > png.palette.size() / 3)))
      throw BadImage("it is damaged: its PNG transparency is impossible");
    png.has_key = true;
    png.key = body;
    png.info.channels = png.colour == 0 ? 2 : 4;
  } else if (name == "eXIf") {
    png.info.orientation = read_exif(body).orientation;
  } else if (name == "iCCP") {
    png.icc = body;
  } else if (name == "pHYs") {
    png.density = body;
  } else {
    for (const char* kept : {"cHRM", "gAMA", "sRGB", "cICP", "mDCV", "cLLI"})
      if (name == kept) png.colour_chunks.push_back(chunk);
  }
}

/// Reads the chunks up to the first of the pixels, or, when `whole`, all of them and their checksums. Throws BadImage,
/// also for pixels that so few compressed bytes cannot hold.
inline PngStructure read_png_structure(Bytes file, bool whole) {
  PngStructure png;
  enum { before, inside, after } pixels = before;
  std::size_t at = png_signature.size();
  for (bool first = true;; first = false) {
    const std::uint32_t length = big_endian(part(file, at, 4, "a PNG chunk's length"));
    const Bytes type = part(file, at + 4, 4, "a PNG chunk's name");
    const std::string name(type.begin(), type.end());
    if (first && name == "CgBI")
      throw BadImage("it is a PNG of Apple's own kind (CgBI), as Xcode makes for iPhones: convert it back, as with "
                     "xcrun pngcrush -revert-iphone-optimizations");
    if (first != (name == "IHDR") || (first && length != 13)) throw BadImage("its PNG header is missing or misplaced");
    if (length > 0x7FFFFFFFu) throw BadImage("it is damaged: a PNG chunk is longer than may be");
    if (name == "IDAT" && png.colour == 3 && png.palette.empty())
      throw BadImage("it is damaged: its PNG palette is missing");
    if (!whole && name == "IDAT") break;
    const Bytes body = part(file, at + 8, length, concat("the PNG chunk ", name).c_str());
    const std::uint32_t crc = big_endian(part(file, at + 8 + length, 4, "a PNG chunk's checksum"));
    if (crc != crc32(file.subspan(at + 4, length + std::size_t{4})))
      throw BadImage(concat("it is damaged: the checksum of the PNG chunk ", name, " does not match"));
    const bool critical = type[0] < 'a';
    if (critical && name != "IHDR" && name != "PLTE" && name != "IDAT" && name != "IEND")
      throw BadImage(concat("it has a PNG chunk '", name,
                            "' that this program does not know, and without which its pixels "
                            "cannot be understood"));
    if (name == "IDAT") {
      if (pixels == after) throw BadImage("it is damaged: its PNG pixels are in two places");
      pixels = inside;
      png.compressed += length;
    } else if (pixels == inside) {
      pixels = after;
    }
    if (first)
      png = png_header(body);
    else if (pixels == before)
      read_png_chunk(png, name, body, file.subspan(at, std::size_t{12} + length));
    else if (name == "PLTE" || name == "tRNS")
      throw BadImage(concat("it is damaged: the PNG chunk ", name, " comes behind the pixels"));
    if (name == "IEND") break;
    at += std::size_t{12} + length;
  }
  ImageInfo& info = png.info;
  info.decoding_copies = (png.usual() ? 1 : 2) + (info.orientation == 1 ? 0 : 1);
  constexpr std::size_t most = 1032;  // of deflate: a match of 258 bytes takes two bits at least
  if (whole && info.w > 0 && info.h > 0 &&
      (std::size_t(info.h) > png.compressed * most ||
       png.row_bytes(info.w) > png.compressed * most / std::size_t(info.h)))
    throw TruncatedImage(concat("it is damaged: ", png.compressed, " compressed bytes cannot hold its ", info.w, "x",
                                info.h, " pixels"));
  if (info.orientation >= 5) std::swap(info.w, info.h);
  return png;
}

}}}  // namespace strata::STRATA_ABI::detail
