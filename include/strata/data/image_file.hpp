// Image files to tensors and back: PNG and BMP and JPEG; 8 and 16 bits; grey, RGB and alpha.
//
//     st::Image<1> grey = st::load_image<1>("photo.png");                        // values in [0, 1]
//     st::Image<1> luma = st::load_image<1>("colour.jpg", {.convert = true});    // RGB to grey only when asked
//     st::save_image("denoised.png", grey, {.bits = 16});
//
// A picture comes as it is to be seen: turned as its EXIF orientation says. A file that is cut short, too large or no
// image is a FileError with the path and the reason, and so is a damaged one: a PNG file always, since it has
// checksums; of a JPEG file, whose format has none, what leaves too few or too many codes for its pixels, or values
// that no picture has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/data/image_info.hpp"
#include "strata/tensor/image.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

struct LoadOptions {
  bool convert = false;                          ///< RGB files to grey by BT.601 luma: 0.299 R + 0.587 G + 0.114 B
  bool drop_alpha = false;                       ///< ignore the alpha channel of files that have one
  std::int64_t max_pixels = default_max_pixels;  ///< larger images are refused before memory is taken for them
};

struct SaveOptions {
  int bits = 8;      ///< per channel; 16 for PNG alone
  int quality = 95;  ///< JPEG, 1 to 100
};

/// Size, channels and bits of an image file, from its header; the pixels are neither read nor checked.
ImageInfo read_image_info(const std::filesystem::path& path);

namespace detail {

/// A picture or a part of it, shape (1, channels, h, w): load_image and load_image_part.
Tensor<float> load_floats(const std::filesystem::path& path, int channels, const LoadOptions& options,
                          const ImagePart* wanted);
/// The same of the bytes of a file. Throws BadImage.
Tensor<float> floats_of_bytes(std::vector<unsigned char> file, int channels, const LoadOptions& options,
                              const ImagePart* wanted = nullptr);
/// save_image.
void save_floats(const std::filesystem::path& path, const Tensor<float>& image, const SaveOptions& options);

template <int C>
Image<C> load_part(const std::filesystem::path& path, const LoadOptions& options, const ImagePart* wanted) {
  static_assert(C >= 1 && C <= 4,
                "strata::load_image<C>: C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)");
  return Image<C>(load_floats(path, C, options, wanted));
}

/// The format that a file's name asks for. Throws FileError.
ImageFormat format_of_name(const std::filesystem::path& path);

/// list_images, empty where there are none.
std::vector<std::filesystem::path> list_images_if_any(const std::filesystem::path& folder);

}  // namespace detail

/// Reads a PNG, JPEG or BMP file (told by its content, not its name) as one image of shape (1, C, H, W) in [0, 1].
/// C is 1 (grey), 3 (RGB), 2 or 4 (the same with alpha). A grey file read as RGB is copied to the three channels. Other
/// changes lose something and happen when asked for: LoadOptions::convert and ::drop_alpha. Throws FileError.
template <int C>
Image<C> load_image(const std::filesystem::path& path, const LoadOptions& options = {}) {
  return detail::load_part<C>(path, options, nullptr);
}

/// The h x w pixels of load_image<C>(path, options) at row y, column x. Of the usual PNG files (8 or 16 bits, no
/// palette, not interlaced, upright) the rows below them and the columns to their right are not decoded: what damage
/// leaves the file's checksums right there goes unseen. Throws FileError, also when they are not all inside.
template <int C>
Image<C> load_image_part(const std::filesystem::path& path, std::int64_t y, std::int64_t x, std::int64_t h,
                         std::int64_t w, const LoadOptions& options = {}) {
  const detail::ImagePart part{y, x, h, w};
  return detail::load_part<C>(path, options, &part);
}

/// Writes one image, shape (1, C, H, W), as the file name's ending says: .png (C 1 to 4), .jpg, .jpeg, .bmp (C 1 or 3).
/// Values are clamped to [0, 1] and rounded to the nearest of 2^bits levels. The file appears whole or not at all. A
/// JPEG file of a grey image has three channels (load it again with `convert`). Throws FileError; NumericError for a
/// NaN; ValueError and ShapeError for options and shapes that cannot be written.
template <int C>
void save_image(const std::filesystem::path& path, const Image<C>& image, const SaveOptions& options = {}) {
  static_assert(C >= 1 && C <= 4, "strata::save_image: images have 1 (grey), 2, 3 (RGB) or 4 channels");
  detail::save_floats(path, image.tensor(), options);
}

/// The image files of a folder (not of folders inside it), sorted by name: .png, .jpg, .jpeg and .bmp in either case.
/// Hidden files and files that are no images are passed over. Throws FileError when there is no image, and when there
/// is one in a format that Strata cannot read, since leaving it out would go unseen.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder);

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/data/image_file_impl.hpp"
#endif
