// What EXIF data says of a picture's place on the page: a TIFF directory (TIFF 6.0) in a JPEG segment or PNG's eXIf
// chunk.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

struct ExifData {
  int orientation = 1;                     // 1 to 8
  double x_resolution = 0, y_resolution = 0;  // pixels per unit
  int unit = 2;                            // 2 inch, 3 centimetre
};

/// What the first directory of TIFF data says; the defaults where there is none or it makes no sense.
inline ExifData read_exif(Bytes tiff) {
  ExifData exif;
  if (tiff.size() < 8) return exif;
  const bool little = tiff[0] == 'I';
  const auto number = [&](std::size_t place, std::size_t bytes) {
    const Bytes field = part(tiff, place, bytes, "the EXIF data");
    return std::size_t(little ? little_endian(field) : big_endian(field));
  };
  try {
    if (tiff[0] != tiff[1] || (!little && tiff[0] != 'M') || number(2, 2) != 42) return exif;
    const std::size_t directory = number(4, 4), entries = number(directory, 2);
    for (std::size_t i = 0; i < entries; ++i) {
      const std::size_t entry = directory + 2 + 12 * i, tag = number(entry, 2), type = number(entry + 2, 2);
      if (tag == 274 && type == 3) {
        const std::size_t value = number(entry + 8, 2);
        if (value >= 1 && value <= 8) exif.orientation = int(value);
      } else if (tag == 296 && type == 3) {
        exif.unit = int(number(entry + 8, 2));
      } else if ((tag == 282 || tag == 283) && type == 5) {
        const std::size_t at = number(entry + 8, 4);
        const double above = double(number(at, 4)), below = double(number(at + 4, 4));
        if (below > 0) (tag == 282 ? exif.x_resolution : exif.y_resolution) = above / below;
      }
    }
  } catch (const TruncatedImage&) {  // what was read before it counts
  }
  return exif;
}

/// The TIFF data of a JPEG APP1 segment; empty when it is of another kind.
inline Bytes exif_of_segment(Bytes body) {
  constexpr std::array<unsigned char, 6> mark{'E', 'x', 'i', 'f', 0, 0};
  return body.size() > mark.size() && std::equal(mark.begin(), mark.end(), body.begin()) ? body.subspan(mark.size())
                                                                                         : Bytes();
}

}}}  // namespace strata::STRATA_ABI::detail
