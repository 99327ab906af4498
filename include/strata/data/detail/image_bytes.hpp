// What the readers of image formats share: bytes with checked access, and the picture they give.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

enum class ImageFormat { png, jpeg, bmp };

/// What the header of an image file says.
struct ImageInfo {
  std::int64_t w = 0;
  std::int64_t h = 0;
  int channels = 0;  ///< 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; a palette counts as what its colours are
  int bits = 8;      ///< per channel: 8 or 16 (fewer are widened to 8 when read)
  ImageFormat format = ImageFormat::png;
  int decoding_copies = 1;   ///< how much memory decoding takes besides the file, in copies of the pixels, about

  bool has_alpha() const { return channels == 2 || channels == 4; }
};

namespace detail {

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

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};

/// A decoded picture: rows of stored_w pixels of `stored_channels` samples of info.bits bits, without padding, the whole or
/// the part at the top left that was asked for. More samples than info.channels may be stored (a grey palette expanded to
/// RGB): the first ones count. Samples of 16 bits have the machine's byte order.
struct DecodedImage {
  ImageInfo info;
  int stored_channels = 0;
  std::int64_t stored_w = 0;
  std::vector<unsigned char> own;                   // of a decoder of Strata's
  std::unique_ptr<void, FreeMemory> stb = nullptr;  // of stb's

  const void* samples() const { return stb ? stb.get() : own.data(); }
};

/// Swaps the bytes of 16-bit samples between the machine's order and most significant byte first.
inline void swap_big_endian(std::span<unsigned char> samples) {
  if constexpr (std::endian::native == std::endian::little)
    for (std::size_t i = 0; i + 1 < samples.size(); i += 2) std::swap(samples[i], samples[i + 1]);
}

}  // namespace detail
}  // namespace strata::inline STRATA_ABI
