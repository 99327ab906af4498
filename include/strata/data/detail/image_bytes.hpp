// What the readers of image formats share: bytes with checked access, and the picture they give.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/data/image_info.hpp"

namespace strata::inline STRATA_ABI::detail {

using Bytes = std::span<const unsigned char>;

/// Why a file is not the image it should be; image_file.hpp adds the path.
struct BadImage : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// The bytes end before the format says so.
struct TruncatedImage : BadImage {
  using BadImage::BadImage;
};

/// A view of bytes[begin, begin + count). Throws TruncatedImage when they are not there.
inline Bytes part(Bytes bytes, std::size_t begin, std::size_t count, const char* what) {
  if (begin > bytes.size() || count > bytes.size() - begin)
    throw TruncatedImage(concat("it ends inside ", what, " (", bytes.size(), " bytes; truncated?)"));
  return bytes.subspan(begin, count);
}

inline std::uint32_t big_endian(Bytes bytes) {
  std::uint32_t value = 0;
  for (const unsigned char byte : bytes) value = value << 8 | byte;
  return value;
}

inline std::uint32_t little_endian(Bytes bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = bytes.size(); i > 0; --i) value = value << 8 | bytes[i - 1];
  return value;
}

/// The extents of the picture as it lies in the file: an ImageInfo for decoders.
inline ImageInfo as_stored(ImageInfo info) {
  if (info.orientation >= 5) std::swap(info.w, info.h);
  return info;
}

/// A decoded picture: rows of stored_w pixels of info.channels samples of info.bits bits, without padding, the whole or
/// the part at the top left that was asked for. `info` has the extents as_stored. Samples of 16 bits have the machine's
/// byte order.
struct DecodedImage {
  ImageInfo info;
  std::int64_t stored_w = 0;
  std::vector<unsigned char> samples;
};

/// The place in the stored picture, of h rows and w columns, of pixel (y, x) of the upright one.
inline std::pair<std::int64_t, std::int64_t> upright_source(int orientation, std::int64_t h, std::int64_t w,
                                                            std::int64_t y, std::int64_t x) {
  switch (orientation) {
    case 2:
      return {y, w - 1 - x};
    case 3:
      return {h - 1 - y, w - 1 - x};
    case 4:
      return {h - 1 - y, x};
    case 5:
      return {x, y};
    case 6:
      return {h - 1 - x, y};
    case 7:
      return {h - 1 - x, w - 1 - y};
    case 8:
      return {x, w - 1 - y};
    default:
      return {y, x};
  }
}

/// Swaps the bytes of 16-bit samples between the machine's order and most significant byte first.
inline void swap_big_endian(std::span<unsigned char> samples) {
  if constexpr (std::endian::native == std::endian::little)
    for (std::size_t i = 0; i + 1 < samples.size(); i += 2) std::swap(samples[i], samples[i + 1]);
}

}  // namespace strata::inline STRATA_ABI::detail
