// What image files say of themselves, beside their pixels.
//
//     const st::ImageInfo info = st::read_image_info("photo.jpg");    // info.w, info.h, info.channels
#pragma once

#include <cstdint>
#include <vector>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// Images of more pixels are taken for attacks unless the caller knows better: Pillow's limit.
inline constexpr std::int64_t default_max_pixels = 178'956'970;

enum class ImageFormat { png, jpeg, bmp };

/// What the header of an image file says. Width and height are those of the upright picture, which loading gives.
struct ImageInfo {
  std::int64_t w = 0;
  std::int64_t h = 0;
  int channels = 0;  ///< 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; a palette counts as what its colours are
  int bits = 8;      ///< per channel: 8 or 16 (fewer are widened to 8 when read)
  ImageFormat format = ImageFormat::png;
  int orientation = 1;      ///< what EXIF says of how the stored pixels lie, 1 to 8; 5 to 8 are turned by 90 degrees
  int decoding_copies = 1;  ///< how much memory decoding takes besides the file, in copies of the pixels, about

  bool has_alpha() const { return channels == 2 || channels == 4; }
};

/// What pictures keep of it: colour profile, gamma, resolution.
struct ImageMetadata {
  std::vector<unsigned char> icc;         ///< the colour profile, as an .icc file holds it; empty: none
  std::vector<unsigned char> png_colour;  ///< PNG's own chunks on colour, whole: cHRM, gAMA, sRGB, cICP, mDCV, cLLI
  std::uint32_t x_density = 0;  ///< pixels per metre, or the ratio of a pixel's sides where `per_metre` is false
  std::uint32_t y_density = 0;  ///< 0: not said
  bool per_metre = false;
  bool damaged_icc = false;  ///< there is a colour profile that cannot be read
};

namespace detail {

/// A rectangle of pixels.
struct ImagePart {
  std::int64_t y, x, h, w;
};

}  // namespace detail
}  // namespace strata::inline STRATA_ABI
