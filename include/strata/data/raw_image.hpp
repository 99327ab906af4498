// An image as a file holds it, in 8 or 16 bits with its alpha channel: a quarter of the memory of floats or less. For
// photographs that are worked on row by row.
//
//     st::RawImage photo = st::load_raw_image("photo.jpg");          // turned as its EXIF orientation says
//     std::vector<float> row(photo.w * photo.channels);
//     photo.read_row(10, row.data());                                // values in [0, 1]
//     photo.write_row(10, row.data());
//     st::save_raw_image("photo.png", photo);
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/rounded.hpp"
#include "strata/data/image_file.hpp"

namespace strata::inline STRATA_ABI {

struct RawImage {
  std::int64_t h = 0, w = 0;
  int channels = 0;  ///< 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
  int bits = 8;      ///< 8 or 16
  int orientation = 1;  ///< what EXIF said, 1 to 8; the samples are turned upright already
  std::vector<unsigned char> samples;  ///< row after row, channels innermost; of 16 bits the most significant byte first

  RawImage() = default;
  RawImage(std::int64_t rows, std::int64_t columns, int channel_count, int bits_per_sample)
      : h(rows), w(columns), channels(channel_count), bits(bits_per_sample),
        samples(std::size_t(rows * columns * channel_count * (bits_per_sample / 8))) {}

  bool has_alpha() const { return channels % 2 == 0; }
  std::size_t row_bytes() const { return std::size_t(w * channels * (bits / 8)); }

  /// The values in [0, 1] of row y.
  void read_row(std::int64_t y, float* to) const {
    const unsigned char* from = samples.data() + std::size_t(y) * row_bytes();
    const std::int64_t count = w * channels;
    if (bits == 16)
      for (std::int64_t i = 0; i < count; ++i) to[i] = float(from[2 * i] << 8 | from[2 * i + 1]) / 65535.0f;
    else
      for (std::int64_t i = 0; i < count; ++i) to[i] = float(from[i]) / 255.0f;
  }
  /// Clamps to [0, 1] and rounds to the nearest level. Throws NumericError for a NaN.
  void write_row(std::int64_t y, const float* from) {
    unsigned char* to = samples.data() + std::size_t(y) * row_bytes();
    const float levels = bits == 16 ? 65535.0f : 255.0f;
    for (std::int64_t i = 0; i < w * channels; ++i) {
      if (std::isnan(from[i])) throw NumericError("RawImage::write_row: the row has NaN values");
      const auto level = static_cast<unsigned>(detail::rounded(std::clamp(from[i], 0.0f, 1.0f) * levels) + 0.5f);
      if (bits == 16) *to++ = static_cast<unsigned char>(level >> 8);
      *to++ = static_cast<unsigned char>(level & 0xFFu);
    }
  }
};

namespace detail {

/// The orientation, 1 to 8, in the EXIF data of a JPEG file (TIFF 6.0, tag 274); 1 when there is none or it makes no sense.
inline int exif_orientation(Bytes file) {
  if (file.size() < 4 || file[0] != 0xFF || file[1] != 0xD8) return 1;
  try {
    for (std::size_t at = 2;;) {
      const Bytes head = part(file, at, 4, "a JPEG segment");
      const std::size_t length = big_endian(head.subspan(2, 2));
      if (head[0] != 0xFF || head[1] == 0xDA || length < 2) return 1;
      const Bytes body = part(file, at + 4, length - 2, "a JPEG segment");
      at += 2 + length;
      constexpr std::array<unsigned char, 6> mark{'E', 'x', 'i', 'f', 0, 0};
      if (head[1] != 0xE1 || body.size() < 14 || !std::equal(mark.begin(), mark.end(), body.begin())) continue;
      const Bytes tiff = body.subspan(6);
      const bool little = tiff[0] == 'I';
      const auto number = [&](std::size_t place, std::size_t bytes) {
        const Bytes field = part(tiff, place, bytes, "the EXIF data");
        return little ? little_endian(field) : big_endian(field);
      };
      if (tiff[0] != tiff[1] || (!little && tiff[0] != 'M') || number(2, 2) != 42) return 1;
      const std::size_t directory = number(4, 4), entries = number(directory, 2);
      for (std::size_t i = 0; i < entries; ++i) {
        const std::size_t entry = directory + 2 + 12 * i;
        if (number(entry, 2) != 274 || number(entry + 2, 2) != 3) continue;
        const std::uint32_t value = number(entry + 8, 2);
        return value >= 1 && value <= 8 ? int(value) : 1;
      }
      return 1;
    }
  } catch (const TruncatedImage&) {
    return 1;
  }
}

/// The place in the file's picture of pixel (y, x) of the upright one.
inline std::pair<std::int64_t, std::int64_t> upright_source(int orientation, std::int64_t h, std::int64_t w, std::int64_t y,
                                                            std::int64_t x) {
  switch (orientation) {
    case 2: return {y, w - 1 - x};
    case 3: return {h - 1 - y, w - 1 - x};
    case 4: return {h - 1 - y, x};
    case 5: return {x, y};
    case 6: return {h - 1 - x, y};
    case 7: return {h - 1 - x, w - 1 - y};
    case 8: return {x, w - 1 - y};
    default: return {y, x};
  }
}

}  // namespace detail

/// Reads a PNG, JPEG or BMP file (told by its content) as it is, turned upright. Throws FileError.
inline RawImage load_raw_image(const std::filesystem::path& path, std::int64_t max_pixels = std::int64_t{1} << 28) {
  try {
    auto file = detail::read_bytes(path, std::uintmax_t{1} << 31);
    const int orientation = detail::exif_orientation(file);  // 1 for what is no JPEG file
    detail::DecodedImage decoded = detail::decode_image(std::move(file), max_pixels);
    const ImageInfo& info = decoded.info;
    if (!decoded.stb) {  // of a format without orientations, and as it will be
      RawImage image;
      image.h = info.h, image.w = info.w, image.channels = info.channels, image.bits = info.bits;
      image.samples = std::move(decoded.own);
      if (info.bits == 16) detail::swap_big_endian(image.samples);
      return image;
    }
    const bool turned = orientation >= 5;
    RawImage image(turned ? info.w : info.h, turned ? info.h : info.w, info.channels, info.bits);
    image.orientation = orientation;
    const auto* from = static_cast<const unsigned char*>(decoded.samples());
    unsigned char* to = image.samples.data();
    const std::size_t bytes = std::size_t(info.bits / 8), pixel = std::size_t(decoded.stored_channels) * bytes;
    for (std::int64_t y = 0; y < image.h; ++y)
      for (std::int64_t x = 0; x < image.w; ++x) {
        const auto [row, column] = detail::upright_source(orientation, info.h, info.w, y, x);
        const unsigned char* at = from + std::size_t(row * info.w + column) * pixel;
        for (int c = 0; c < info.channels; ++c, at += bytes) {
          if (bytes == 2) {
            std::uint16_t sample = 0;  // stb gives the machine's byte order
            std::memcpy(&sample, at, 2);
            *to++ = static_cast<unsigned char>(sample >> 8);
            *to++ = static_cast<unsigned char>(sample & 0xFFu);
          } else {
            *to++ = *at;
          }
        }
      }
    return image;
  } catch (const detail::BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot read the image: ", problem.what()));
  }
}

/// Writes a .png as it is, or a .bmp or .jpg (8 bits of 1 or 3 channels: ValueError for others). The file appears whole or
/// not at all. An image that is moved here (std::move) gives its memory to the work. Throws FileError.
inline void save_raw_image(const std::filesystem::path& path, RawImage image, int quality = 95) {
  const std::string extension = detail::lower_extension(path);
  const bool png = extension == ".png", bmp = extension == ".bmp", jpeg = extension == ".jpg" || extension == ".jpeg";
  if (!png && !bmp && !jpeg)
    throw FileError(concat(path.string(), ": cannot tell the image format: wanted a name ending in .png, .jpg, .jpeg or .bmp"));
  if (!png && (image.bits != 8 || image.has_alpha()))
    throw ValueError(concat(path.string(), ": ", extension, " holds 8 bits of 1 or 3 channels, not ", image.bits, " of ",
                            image.channels, "; write a .png"));
  try {
    std::vector<unsigned char> file;
    if (png) {
      const auto encoded = detail::encode_png(std::move(image.samples), image.w, image.h, image.channels, image.bits);
      return detail::write_bytes(path, encoded.parts());
    }
    if (bmp) {
      file = detail::encode_bmp(image.samples, image.w, image.h, image.channels);
    } else {
      if (image.w > 65535 || image.h > 65535) throw detail::BadImage("JPEG images have at most 65535 rows and columns");
      const auto append = [](void* to, void* data, int size) {
        const auto* bytes = static_cast<const unsigned char*>(data);
        for (int i = 0; i < size; ++i) static_cast<std::vector<unsigned char>*>(to)->push_back(bytes[i]);
      };
      if (!detail::stb::stbi_write_jpg_to_func(append, &file, int(image.w), int(image.h), image.channels,
                                               image.samples.data(), quality))
        throw detail::BadImage("the JPEG encoder failed");
    }
    const detail::Bytes whole = file;
    detail::write_bytes(path, {&whole, 1});
  } catch (const detail::BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot write the image: ", problem.what()));
  }
}

}  // namespace strata::inline STRATA_ABI
