// An image as a file holds it, in 8 or 16 bits with its alpha channel: a quarter of the memory of floats or less. For
// photographs that are worked on row by row.
//
//     st::RawImage photo = st::load_raw_image("photo.jpg");          // turned as its EXIF orientation says
//     std::vector<float> row(photo.w * photo.channels);
//     photo.read_row(10, row.data());                                // values in [0, 1]
//     photo.write_row(10, row.data());
//     st::save_raw_image("photo.png", photo);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "strata/data/image_file.hpp"
#include "strata/data/image_info.hpp"

namespace strata::inline STRATA_ABI {

struct RawImage {
  std::int64_t h = 0, w = 0;
  int channels = 0;     ///< 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
  int bits = 8;         ///< 8 or 16
  int orientation = 1;  ///< what EXIF said, 1 to 8; the samples are turned upright already
  std::vector<unsigned char>
      samples;             ///< row after row, channels innermost; of 16 bits the most significant byte first
  ImageMetadata metadata;  ///< colour profile, gamma, resolution

  RawImage() = default;
  RawImage(std::int64_t rows, std::int64_t columns, int channel_count, int bits_per_sample)
      : h(rows),
        w(columns),
        channels(channel_count),
        bits(bits_per_sample),
        samples(std::size_t(rows * columns * channel_count * (bits_per_sample / 8))) {}

  bool has_alpha() const { return channels % 2 == 0; }
  std::size_t row_bytes() const { return std::size_t(w * channels * (bits / 8)); }

  /// The values in [0, 1] of row y.
  void read_row(std::int64_t y, float* to) const;
  /// Clamps to [0, 1] and rounds to the nearest level. Throws NumericError for a NaN.
  void write_row(std::int64_t y, const float* from);
};

/// Reads a PNG, JPEG or BMP file (told by its content) as it is, turned upright. Throws FileError.
RawImage load_raw_image(const std::filesystem::path& path, std::int64_t max_pixels = default_max_pixels);

/// Whether all colours are shades of grey, as of a grey picture that was stored as RGB.
bool is_grey(const RawImage& image);

/// Gives pixels that alpha hides, which may have any colour, that of the nearest visible one: what mixes a pixel with
/// its neighbours, as resizing and convolutions do, would let it show at the edge. A pixel is hidden when its alpha is
/// 0, or below a sixteenth of a neighbour's.
void spread_visible_colours(RawImage& image);

/// Writes a .png as it is, or a .bmp or .jpg (8 bits of 1 or 3 channels: ValueError for others). Of the metadata it
/// writes what the format can hold. The file appears whole or not at all. An image that is moved here (std::move) gives
/// its memory to the work. Throws FileError.
void save_raw_image(const std::filesystem::path& path, RawImage image, int quality = 95);

/// What save_raw_image will not write of the image's metadata in a file of that name: "colour profile", "gamma".
std::vector<std::string> left_out(const std::filesystem::path& path, const RawImage& image);

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/data/raw_image_impl.hpp"
#endif
