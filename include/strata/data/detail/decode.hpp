// Image files of any format to their pixels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "strata/data/detail/bmp.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/jpeg.hpp"
#include "strata/data/detail/metadata.hpp"
#include "strata/data/detail/png.hpp"
#include "strata/data/detail/png_pixels.hpp"
#include "strata/data/detail/png_rare.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Bytes in which most files have their header.
inline constexpr std::size_t usual_header = std::size_t{1} << 16;

/// Recognises the format by its first bytes, whatever the file's name, and reads its structure.
inline ImageInfo read_structure(Bytes file, bool whole) {
  if (file.empty()) throw BadImage("it is empty (0 bytes)");
  ImageInfo info;
  if (file.size() >= 8 && std::equal(png_signature.begin(), png_signature.end(), file.begin()))
    info = read_png_structure(file, whole).info;
  else if (file.size() >= 3 && file[0] == 0xFF && file[1] == 0xD8 && file[2] == 0xFF)
    info = read_jpeg_structure(file, whole).info;
  else if (file.size() >= 2 && file[0] == 'B' && file[1] == 'M')
    info = read_bmp_structure(file).info;
  else
    throw BadImage("it is not a PNG, JPEG or BMP image");
  if (info.w <= 0 || info.h <= 0) throw BadImage(concat("it is an image of ", info.w, "x", info.h, " pixels"));
  return info;
}

/// Throws BadImage for a picture of more than so many pixels, or without the part that is wanted.
inline void check_extents(const ImageInfo& info, std::int64_t max_pixels, const ImagePart* wanted) {
  if (info.h > max_pixels / info.w)
    throw BadImage(concat("it has ", info.w, "x", info.h, " pixels, the limit is ", max_pixels,
                          " in all; raise LoadOptions::max_pixels if that is meant"));
  if (!wanted) return;
  const auto& [y, x, h, w] = *wanted;
  if (y < 0 || x < 0 || h <= 0 || w <= 0 || h > info.h - y || w > info.w - x)
    throw BadImage(concat("it has ", info.h, "x", info.w, " pixels (rows x columns), and ", h, "x", w, " at row ", y,
                          ", column ", x, " are not inside"));
}

/// The whole picture or, of files that allow it, no more than the rows and columns up to the end of `wanted`, a part of
/// the upright picture. Throws BadImage, also when `wanted` is not inside, before memory is taken that the file cannot
/// fill.
inline DecodedImage decode_image(std::vector<unsigned char> file, std::int64_t max_pixels,
                                 const ImagePart* wanted = nullptr, ImageMetadata* metadata = nullptr) {
  const ImageInfo info = read_structure(file, false);
  check_extents(info, max_pixels, wanted);
  if (info.format == ImageFormat::bmp) {
    if (metadata) *metadata = metadata_of_bmp(file);
    return decode_bmp(file, read_bmp_structure(file));
  }
  if (info.format == ImageFormat::jpeg) {
    const JpegStructure jpeg = read_jpeg_structure(file, true);
    if (metadata) *metadata = metadata_of(file, jpeg);
    return decode_jpeg(std::move(file), jpeg);
  }
  const PngStructure png = read_png_structure(file, true);
  if (metadata) *metadata = metadata_of(png);
  if (!png.usual()) return decode_rare_png(std::move(file), png);
  const ImageInfo stored = as_stored(png.info);
  const bool first_rows = wanted && stored.orientation == 1;
  return decode_usual_png(std::move(file), stored, first_rows ? wanted->y + wanted->h : stored.h,
                          first_rows ? wanted->x + wanted->w : stored.w);
}

}  // namespace strata::inline STRATA_ABI::detail
